import type { TranslationBundle } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { Menu } from '@lumino/widgets';

import { button, clock, duration, el, icon, sentence, stateMark } from '#panel/dom.js';

import { CommandIDs } from './ids';
import type { Model } from './model';
import { Section } from './section';
import type { JobSummary } from './tokens';

/** What else the list may be narrowed to: a state, or a notebook. */
export interface Filter {
  text: string;
  state: string;
  notebook: string;
}

const DAY = 86_400;

/** Whether a job passes; a text may also be found by the server, in the source of its cell. */
export function passes(job: JobSummary, filter: Filter, found: Set<string>): boolean {
  const { text, state, notebook } = filter;
  if (state && state !== job.state && state !== (job.ended ? 'ended' : 'live')) return false;
  if (notebook && notebook !== job.notebook) return false;
  if (!text) return true;
  const sought = text.toLowerCase();
  const texts = [job.name, job.id, job.notebook, job.word, job.fact];
  return found.has(job.id) || texts.some(part => part.toLowerCase().includes(sought));
}

/** When a job was made, as short as it can be said: today its time, then the day. */
export function age(created: number, now: number, trans: TranslationBundle): string {
  const [at, today] = [new Date(created * 1000), new Date(now * 1000)];
  if (at.toDateString() === today.toDateString()) return clock(created).slice(0, 5);
  if (at.toDateString() === new Date((now - DAY) * 1000).toDateString())
    return trans.__('yesterday');
  const options: Intl.DateTimeFormatOptions = { day: 'numeric', month: 'short' };
  if (at.getFullYear() !== today.getFullYear()) options.year = 'numeric';
  return at.toLocaleDateString(undefined, options);
}

/** One row; its buttons are made when it is first pointed at or has the focus. */
class Row {
  constructor(readonly list: Jobs) {
    this.node.addEventListener('pointerenter', () => this.equip());
    this.node.addEventListener('focusin', () => this.equip());
  }

  readonly node = el('li', { tabindex: '-1' });
  job!: JobSummary;

  show(job: JobSummary, away: boolean): void {
    const { trans, model } = this.list;
    const made = age(job.created, model.now(), trans); // another one on the next day
    const key = JSON.stringify([away && model.since, made, job]);
    if (key === this.key) return;
    this.key = key;
    this.job = job;
    this.unknown = away && !job.ended;
    const [state, word] = this.unknown ? ['unknown', trans.__('Unknown')] : [job.state, job.word];
    const mark = stateMark(state, word);
    mark.querySelector('span')?.classList.add('jp-RayOffload-sr');
    const then = () => trans.__('%1 at %2', job.word.toLowerCase(), clock(model.since).slice(0, 5));
    const fact = this.unknown ? then() : plain(job.fact);
    const under = [word, fact].filter(Boolean).join(' · ');
    this.time = el('time', { class: 'jp-RayOffload-end' });
    const hovering = this.node.matches(':hover, :focus-within');
    const held = this.equipped?.contains(document.activeElement) ? document.activeElement : null;
    this.node.dataset.id = job.id;
    this.node.setAttribute('aria-label', [job.name, under].join(', '));
    this.equipped = null;
    this.node.replaceChildren(
      el(
        'div',
        { class: 'jp-RayOffload-row' },
        mark,
        el('span', { class: 'jp-RayOffload-name', title: `${job.name} (${job.id})` }, job.name),
        this.time
      ),
      el(
        'div',
        { class: 'jp-RayOffload-row jp-RayOffload-rowUnder' },
        el('span', { class: 'jp-RayOffload-meta', title: under }, under),
        this.unknown // the one time that matters then is when it was known last
          ? null
          : el('span', { class: 'jp-RayOffload-end jp-RayOffload-quiet jp-RayOffload-age' }, made)
      )
    );
    this.tick();
    if (hovering) this.equip();
    if (held) this.refocus(held.getAttribute('aria-label'));
  }

  /** The focus goes to the same button as before, or to the row. */
  private refocus(label: string | null): void {
    const tools = [...this.node.querySelectorAll('button')];
    (tools.find(tool => tool.getAttribute('aria-label') === label) ?? this.node).focus();
  }

  /** Count on, where the job is known to go on. */
  tick(): void {
    const { begun, finished, ended } = this.job;
    if (this.unknown) return;
    const until = finished ?? (ended ? null : this.list.model.now());
    this.time.textContent = begun && until ? duration(until - begun) : '';
  }

  private equip(): void {
    if (this.equipped) return;
    const { trans, commands } = this.list;
    const { id, ended } = this.job;
    const act = (command: string) => () => void commands.execute(command, { id });
    const tools = [
      button('open', trans.__('Open'), act(CommandIDs.openJob), { tabindex: '-1' }),
      button('attach', trans.__('Attach to the notebook'), act(CommandIDs.attach), {
        tabindex: '-1'
      }),
      ended
        ? button('rerun', trans.__('Rerun'), act(CommandIDs.rerun), { tabindex: '-1' })
        : button('cancel', trans.__('Cancel'), act(CommandIDs.cancel), { tabindex: '-1' })
    ];
    if (ended)
      tools.push(
        button('delete', trans.__('Delete'), act(CommandIDs.deleteJob), { tabindex: '-1' })
      );
    this.equipped = el('div', { class: 'jp-RayOffload-hover' }, ...tools);
    this.node.append(this.equipped);
    if (this.node.tabIndex === 0) this.reach(true);
  }

  /** Only the row that has the focus hands it on to its buttons. */
  reach(on: boolean): void {
    this.node.tabIndex = on ? 0 : -1;
    this.equipped?.querySelectorAll('button').forEach(tool => (tool.tabIndex = on ? 0 : -1));
  }

  private key = '';
  private unknown = false;
  private time!: HTMLElement;
  private equipped: HTMLElement | null = null;
}

/** The jobs of all notebooks, newest first. */
export class Jobs extends Section {
  constructor(
    readonly model: Model,
    readonly commands: CommandRegistry,
    readonly trans: TranslationBundle
  ) {
    const body = el('div', { class: 'jp-RayOffload-jobsBody' });
    const refresh = button(
      'refresh',
      trans.__('Refresh'),
      () => void commands.execute(CommandIDs.refresh)
    );
    super(trans.__('Jobs'), [refresh], body);
    this.addClass('jp-mod-rest');
    this.input = el('input', {
      type: 'search',
      'aria-label': trans.__('Filter jobs'),
      placeholder: trans.__('Filter jobs'),
      oninput: () => this.narrow({ ...this.filter, text: this.input.value.trim() })
    });
    this.more = button(
      'filter',
      trans.__('Filter by state or notebook'),
      event => this.choose(event),
      {
        'aria-haspopup': 'menu'
      }
    );
    this.bar = el(
      'div',
      { class: 'jp-RayOffload-filter' },
      el('div', { class: 'jp-RayOffload-find' }, icon('search'), this.input),
      this.more
    );
    this.list = el('ul', {
      class: 'jp-RayOffload-list jp-RayOffload-jobs',
      role: 'list',
      'aria-label': trans.__('Jobs')
    });
    this.note = el('div', { class: 'jp-RayOffload-note', role: 'status' });
    this.scroll = el('div', { class: 'jp-RayOffload-scroll' }, this.list, this.note);
    body.append(this.bar, this.scroll);
    this.list.addEventListener('click', event => this.open(event));
    this.list.addEventListener('keydown', event => this.key(event));
    this.list.addEventListener('focusin', event => this.focusRow(this.rowOf(event)));
    this.list.addEventListener('contextmenu', event => this.focusRow(this.rowOf(event)));
    this.scroll.addEventListener('scroll', () => this.reachEnd(), { passive: true });
    this.timer = setInterval(() => this.tick(), 1000);
    model.changed.connect(this.draw, this);
    this.draw();
  }

  filter: Filter = { text: '', state: '', notebook: '' };

  override dispose(): void {
    clearInterval(this.timer);
    this.model.changed.disconnect(this.draw, this);
    super.dispose();
  }

  /** Show only what passes; what only the server can find comes a moment later. */
  narrow(filter: Filter): void {
    this.filter = filter;
    this.found = new Set();
    this.input.value = this.input.value.trim() === filter.text ? this.input.value : filter.text;
    this.more.setAttribute('aria-pressed', String(Boolean(filter.state || filter.notebook)));
    this.draw();
    clearTimeout(this.asking);
    if (!filter.text) return;
    this.asking = setTimeout(async () => {
      const found = await this.model.search(filter.text).catch(() => new Set<string>());
      if (this.filter.text !== filter.text) return;
      this.found = found;
      this.draw();
    }, 300);
  }

  private draw(): void {
    const away = this.model.health === 'away';
    const shown = this.model.jobs.filter(job => passes(job, this.filter, this.found));
    const ids = new Set(shown.map(job => job.id));
    let lost = false;
    for (const [id, row] of this.rows) {
      if (ids.has(id)) continue;
      lost ||= row.node.contains(document.activeElement);
      row.node.remove();
      this.rows.delete(id);
    }
    let before: Element | null = null;
    for (const job of shown) {
      let row = this.rows.get(job.id);
      if (!row) this.rows.set(job.id, (row = new Row(this)));
      row.show(job, away);
      const place: Element | null = before
        ? before.nextElementSibling
        : this.list.firstElementChild;
      if (place !== row.node) this.list.insertBefore(row.node, place);
      before = row.node;
    }
    const current = shown.some(job => job.id === this.current) ? this.current : shown[0]?.id;
    if (current) this.reach(current);
    if (current && lost) this.rows.get(current)?.node.focus();
    this.bar.hidden = !this.model.jobs.length && !this.narrowed;
    this.say(shown.length);
    this.reachEnd();
  }

  private get narrowed(): boolean {
    return Boolean(this.filter.text || this.filter.state || this.filter.notebook);
  }

  private say(count: number): void {
    const { trans, model } = this;
    const key = JSON.stringify([
      count > 0,
      this.filter,
      model.health,
      model.reason,
      model.jobs.length > 0
    ]);
    if (key === this.noteKey) return;
    this.noteKey = key;
    this.note.hidden = count > 0 || model.health === 'asking';
    if (this.note.hidden) return;
    if (model.jobs.length) {
      const { text } = this.filter;
      const said = text
        ? trans.__('No job matches “%1”', text)
        : trans.__('No job is in this state');
      const clear = () => {
        this.narrow({ text: '', state: '', notebook: '' });
        this.input.focus();
      };
      this.note.replaceChildren(
        el('p', {}, said),
        el(
          'div',
          { class: 'jp-RayOffload-buttons' },
          button('close', trans.__('Clear filter'), clear, { text: true })
        )
      );
      return;
    }
    const second = trans.__(
      'Put `%1` on the first line of a cell and run it. It shows up here and under the cell.',
      '%%ray_job' // in the text itself it would lose a sign
    );
    const first = model.reason
      ? trans.__('Nothing runs that knows of jobs')
      : trans.__('No jobs yet');
    this.note.replaceChildren(
      el('p', {}, first),
      el('p', { class: 'jp-RayOffload-quiet' }, sentence(second, this.model.now, []))
    );
  }

  // ------------------------------------------------------------------ rows

  private rowOf(event: Event): Row | undefined {
    const node = (event.target as Element).closest<HTMLElement>('li[data-id]');
    return node ? this.rows.get(node.dataset.id!) : undefined;
  }

  private focusRow(row: Row | undefined): void {
    if (row) this.reach(row.job.id);
  }

  /** One row is in the order of the focus; arrows go to the others. */
  private reach(id: string): void {
    if (id !== this.current) this.rows.get(this.current)?.reach(false);
    this.current = id;
    this.rows.get(id)?.reach(true);
  }

  private open(event: Event): void {
    const row = this.rowOf(event);
    if (!row || (event.target as Element).closest('button')) return;
    void this.commands.execute(CommandIDs.openJob, { id: row.job.id });
  }

  private key(event: KeyboardEvent): void {
    const row = this.rowOf(event);
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / 49) - 1);
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -Infinity,
      End: Infinity
    };
    if (event.key in steps) {
      const nodes = [...this.list.children] as HTMLElement[];
      const at = nodes.indexOf(row.node) + steps[event.key];
      nodes[Math.max(0, Math.min(nodes.length - 1, at))].focus();
    } else if (event.key === 'Enter' && event.target === row.node) {
      void this.commands.execute(CommandIDs.openJob, { id: row.job.id });
    } else if (event.key === 'Escape' && event.target !== row.node) {
      row.node.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  private tick(): void {
    if (!this.isVisible) return;
    for (const row of this.rows.values()) if (!row.job.ended) row.tick();
  }

  /** The next older jobs are read when the last ones come into sight. */
  private reachEnd(): void {
    const { scroll, model } = this;
    const near = scroll.scrollTop + 2 * scroll.clientHeight > scroll.scrollHeight;
    if (!near || !model.older || this.reading || !this.isVisible) return;
    this.reading = true;
    model
      .more()
      .catch(() => undefined)
      .finally(() => (this.reading = false));
  }

  // ------------------------------------------------------------------ the menu of filters

  private choose(event: MouseEvent): void {
    const commands = new CommandRegistry();
    const menu = new Menu({ commands });
    const { trans, filter } = this;
    const add = (label: string, change: Partial<Filter>) => {
      const id = `filter-${commands.listCommands().length}`;
      const isToggled = () =>
        Object.entries(change).every(([key, value]) => filter[key as keyof Filter] === value);
      commands.addCommand(id, {
        label,
        isToggled,
        execute: () => this.narrow({ ...filter, ...change })
      });
      menu.addItem({ command: id });
    };
    add(trans.__('All states'), { state: '' });
    add(trans.__('Not ended'), { state: 'live' });
    for (const [state, label] of [
      ['running', trans.__('Running')],
      ['succeeded', trans.__('Succeeded')],
      ['failed', trans.__('Failed')],
      ['cancelled', trans.__('Cancelled')],
      ['lost', trans.__('Lost')]
    ]) {
      add(label, { state });
    }
    const notebooks = [...new Set(this.model.jobs.map(job => job.notebook))].filter(Boolean).sort();
    if (notebooks.length) {
      menu.addItem({ type: 'separator' });
      add(trans.__('All notebooks'), { notebook: '' });
      notebooks.slice(0, 20).forEach(notebook => add(notebook, { notebook }));
    }
    const { left, bottom } = (event.currentTarget as HTMLElement).getBoundingClientRect();
    menu.open(left, bottom);
  }

  private readonly list: HTMLElement;
  private readonly bar: HTMLElement;
  private readonly input: HTMLInputElement;
  private readonly more: HTMLButtonElement;
  private readonly note: HTMLElement;
  private readonly scroll: HTMLElement;
  private readonly rows = new Map<string, Row>();
  private readonly timer: ReturnType<typeof setInterval>;
  private asking: ReturnType<typeof setTimeout> | undefined;
  private found = new Set<string>();
  private current = '';
  private reading = false;
  private noteKey = '';
}

/** A sentence without its marks. */
function plain(text: string): string {
  const node = el('span');
  node.append(sentence(text, () => Date.now() / 1000, []));
  return node.textContent ?? '';
}
