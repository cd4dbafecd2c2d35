import type { TranslationBundle } from '@jupyterlab/translation';

import { clock, duration, el, stateMark } from '#panel/dom.js';
import type { LogStore } from '#panel/log.js';
import type { Intent, JobView } from '#panel/panel.js';
import { Panel } from '#panel/panel.js';

import type { Bar, Fact, Job, JobPage, Table, TableCell } from './tokens';

type TabName = 'log' | 'outputs' | 'inputs' | 'environment' | 'timeline';

/** What can be asked for on the page. */
export interface Doings {
  send(intent: Intent): void;
  open(id: string): void;
  notebook(): void;
}

/** The panel as it is under the cell, with facts and tabs where there is room for them. */
export class JobPanel extends Panel {
  constructor(
    private readonly job: () => Job | null,
    store: LogStore,
    node: HTMLElement,
    signal: AbortSignal,
    private readonly doings: Doings,
    private readonly trans: TranslationBundle
  ) {
    const heard = {
      offset: 0,
      at: Date.now() / 1000,
      gone: false,
      listeners: new Set<() => void>()
    };
    super(
      { get: () => job()!.view, send: intent => doings.send(intent) },
      store,
      heard,
      node,
      signal
    );
    this.heardOf = heard;
  }

  /** Where the rich outputs go; JupyterLab draws them. */
  readonly shown = el('div');

  override draw(): void {
    const job = this.job();
    if (!job) return;
    const now = job.view.now;
    if (typeof now === 'number') this.heardOf.offset = now - Date.now() / 1000;
    super.draw();
    this.outputs.remove(); // they have a tab of their own
    this.slot('facts', job.page.facts, () => this.facts(job.page.facts));
    this.slot('inputs', [job.page.source, job.page.inputs], () => this.inputs(job.page));
    this.slot('results', job.page.outputs, () => this.tables(job.page.outputs));
    this.slot('environment', job.page.environment, () => this.tables(job.page.environment));
    this.slot('timeline', [job.page.bars, job.page.timeline], () => this.timeline(job.page));
  }

  /** What a page of its own offers beside the panel's own actions. */
  override shownView(): JobView | undefined {
    const view = this.job()?.view;
    if (!view) return undefined;
    const { trans } = this;
    const own = view.actions.filter(action => action.do !== 'open');
    const has = (name: string) => own.some(action => action.do === name);
    const action = (name: string, label: string, text = false) => ({
      do: name,
      icon: name,
      label,
      text
    });
    const actions = [action('attach', trans.__('Attach to the notebook'), true), ...own];
    if (view.ended && !has('rerun')) actions.splice(1, 0, action('rerun', trans.__('Rerun'), true));
    actions.push({ ...action('save', trans.__('Save the log')), icon: 'download' });
    if (view.ended) actions.push(action('delete', trans.__('Delete job')));
    // The line of time tells of the steps of a job that has ended.
    const strip = view.ended ? [] : view.strip;
    return {
      ...view,
      strip,
      line: false,
      values: [],
      actions,
      log: { ...(view.log as object), shown: true }
    };
  }

  override boxRoot(): HTMLElement {
    const parts = ['head', 'strip', 'reason', 'facts'].map(name => this.place(name));
    this.place('values'); // they stand in the tabs
    const log = [this.place('traceback'), this.log.node];
    const { trans } = this;
    this.addTab('log', trans.__('Log'), log, true);
    this.addTab('outputs', trans.__('Outputs'), [this.shown, this.place('results')]);
    this.addTab('inputs', trans.__('Inputs'), [this.place('inputs')]);
    this.addTab('environment', trans.__('Environment'), [this.place('environment')]);
    this.addTab('timeline', trans.__('Timeline'), [this.place('timeline')]);
    const list = el(
      'div',
      {
        class: 'jp-RayOffload-tabs',
        role: 'tablist',
        'aria-label': trans.__('Job'),
        onkeydown: (event: KeyboardEvent) => this.arrow(event)
      },
      ...[...this.tabs.values()].map(tab => tab.handle)
    );
    const root = el(
      'section',
      {
        class: 'jp-RayOffload jp-RayOffload-panel jp-RayOffload-job',
        role: 'group',
        tabindex: '-1'
      },
      this.said,
      ...parts,
      list,
      ...[...this.tabs.values()].map(tab => tab.page)
    );
    this.choose(this.chosen);
    return root;
  }

  // ------------------------------------------------------------------ tabs

  choose(chosen: TabName, focus = false): void {
    this.chosen = chosen;
    for (const [name, { handle, page }] of this.tabs) {
      const here = name === chosen;
      handle.setAttribute('aria-selected', String(here));
      handle.tabIndex = here ? 0 : -1;
      page.hidden = !here;
      if (here && focus) handle.focus();
    }
    if (chosen === 'log') this.log.draw();
    this.onChoose(chosen);
  }

  onChoose: (name: TabName) => void = () => undefined;

  private addTab(name: TabName, label: string, parts: Node[], flush = false): void {
    const id = `jp-RayOffload-tab-${++made}`;
    const handle = el(
      'button',
      {
        type: 'button',
        role: 'tab',
        id,
        'aria-controls': `${id}-page`,
        onclick: () => this.choose(name)
      },
      label
    );
    const page = el(
      'div',
      {
        class: `jp-RayOffload-tab${flush ? ' jp-mod-flush' : ''}`,
        role: 'tabpanel',
        id: `${id}-page`,
        'aria-labelledby': id,
        tabindex: flush ? null : '0'
      },
      ...parts
    );
    this.tabs.set(name, { handle, page });
  }

  private arrow(event: KeyboardEvent): void {
    const names = [...this.tabs.keys()];
    const at = names.indexOf(this.chosen);
    const to: Record<string, number> = {
      ArrowRight: (at + 1) % names.length,
      ArrowLeft: (at + names.length - 1) % names.length,
      Home: 0,
      End: names.length - 1
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    event.stopPropagation();
    this.choose(names[to[event.key]], true);
  }

  // ------------------------------------------------------------------ what stands in them

  private facts(facts: Fact[]): HTMLElement {
    const said = ({ at, day, notebook, text }: Fact): Node | string => {
      if (at !== undefined) return day ? longDay(at) : moment(at, this.now());
      if (!notebook) return text ?? '';
      const open = () => this.doings.notebook();
      return el(
        'button',
        { type: 'button', class: 'jp-mod-link', onclick: open },
        text ?? notebook
      );
    };
    return el(
      'dl',
      { class: 'jp-RayOffload-facts' },
      ...facts.map(fact => el('div', {}, el('dt', {}, fact.title), el('dd', {}, said(fact))))
    );
  }

  private inputs({ source, inputs }: JobPage): HTMLElement {
    return el(
      'div',
      {},
      el('h3', {}, this.trans.__('Cell')),
      el('pre', { class: 'jp-RayOffload-source', tabindex: '0' }, el('code', {}, source)),
      ...this.tableNodes(inputs)
    );
  }

  private tables(tables: Table[]): HTMLElement {
    return el('div', {}, ...this.tableNodes(tables));
  }

  private tableNodes(tables: Table[]): HTMLElement[] {
    return tables.flatMap(table => {
      const title = el('h3', {}, table.title);
      if (!table.rows.length)
        return [title, el('p', { class: 'jp-RayOffload-quiet' }, table.empty)];
      const last = table.columns.length - 1;
      const kind = (i: number) =>
        [table.columns[i].number && 'jp-mod-number', i === last && 'jp-mod-fill']
          .filter(Boolean)
          .join(' ') || null;
      const head = table.columns.map((column, i) =>
        el('th', { scope: 'col', class: kind(i) }, column.title)
      );
      const rows = table.rows.map(row =>
        el('tr', {}, ...row.map((cell, i) => el('td', { class: kind(i) }, this.cell(cell))))
      );
      const drawn = el(
        'table',
        { class: 'jp-RayOffload-table', 'aria-label': table.title },
        el('thead', {}, el('tr', {}, ...head)),
        el('tbody', {}, ...rows)
      );
      return [title, el('div', { class: 'jp-RayOffload-tableBox' }, drawn)];
    });
  }

  private cell(cell: TableCell): Node {
    if (typeof cell === 'string') return this.sentence(cell);
    const { text = '', mark, job, at } = cell;
    if (at !== undefined) return document.createTextNode(exact(at));
    if (mark) return stateMark(mark, text);
    const out = document.createDocumentFragment();
    out.append(this.sentence(`${text} `));
    if (job) {
      out.append(
        el(
          'button',
          { type: 'button', class: 'jp-mod-link', onclick: () => this.doings.open(job) },
          job
        )
      );
    }
    return out;
  }

  private timeline({ bars, timeline }: JobPage): HTMLElement {
    const rows = bars.map(bar => {
      const style = `left: ${(100 * bar.from).toFixed(2)}%; width: ${(100 * bar.share).toFixed(2)}%`;
      return el(
        'div',
        {},
        el('dt', {}, bar.name),
        el(
          'dd',
          { class: 'jp-mod-track', 'aria-hidden': 'true' },
          el('i', { class: bar.name === 'running' ? 'jp-mod-running' : null, style })
        ),
        el('dd', { class: 'jp-mod-time' }, this.barTime(bar))
      );
    });
    return el(
      'div',
      {},
      el('dl', { class: 'jp-RayOffload-timeline' }, ...rows),
      ...this.tableNodes(timeline)
    );
  }

  private barTime(bar: Bar): Node {
    if (bar.text) return document.createTextNode(bar.text);
    const node = el('time', {}, duration(this.now() - bar.begin));
    this.times[this.drawing].push(() => (node.textContent = duration(this.now() - bar.begin)));
    return node;
  }

  private readonly heardOf: { offset: number };
  private readonly tabs = new Map<TabName, { handle: HTMLElement; page: HTMLElement }>();
  private chosen: TabName = 'log';
}

/** For the ids of tabs. */
let made = 0;

function moment(at: number, now: number): string {
  const [then, today] = [new Date(at * 1000), new Date(now * 1000)];
  if (then.toDateString() === today.toDateString()) return clock(at);
  return `${then.toLocaleDateString(undefined, { day: 'numeric', month: 'short' })}, ${clock(at)}`;
}

function longDay(at: number): string {
  return new Date(at * 1000).toLocaleDateString(undefined, { day: 'numeric', month: 'long' });
}

function exact(at: number): string {
  return `${clock(at)}.${String(Math.floor((at * 1000) % 1000)).padStart(3, '0')}`;
}
