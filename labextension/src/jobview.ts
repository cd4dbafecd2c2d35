import { MainAreaWidget } from '@jupyterlab/apputils';
import { OutputAreaModel, SimplifiedOutputArea } from '@jupyterlab/outputarea';
import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import type { Message } from '@lumino/messaging';
import { Poll } from '@lumino/polling';
import { Widget } from '@lumino/widgets';

import { button, clock, duration, el, stateMark } from '#panel/dom.js';
import type { Asked } from '#panel/log.js';
import { LogStore } from '#panel/log.js';
import type { Intent, JobView } from '#panel/panel.js';
import { Panel } from '#panel/panel.js';

import { ApiError } from './api';
import { words } from './dialogs';
import { rayIcon } from './icons';
import { CommandIDs } from './ids';
import type { Model } from './model';
import type { Bar, Fact, Job, JobPage, Table, TableCell } from './tokens';

/** Between two looks at a log that grows, milliseconds. */
const LOG_PAUSE = 500;
/** The same while the page does not answer, at most. */
const LOG_PAUSE_MOST = 10_000;

type TabName = 'log' | 'outputs' | 'inputs' | 'environment' | 'timeline';

interface Doings {
  send(intent: Intent): void;
  open(id: string): void;
  notebook(): void;
}

/** The panel as it is under the cell, with facts and tabs where there is room for them. */
class JobPanel extends Panel {
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

let made = 0;

/** All of one job: the same panel as under its cell, from the store, whether or not its kernel lives. */
export class JobContent extends Widget {
  constructor(
    readonly jobId: string,
    private readonly model: Model,
    private readonly commands: CommandRegistry,
    private readonly rendermime: IRenderMimeRegistry,
    private readonly trans: TranslationBundle
  ) {
    super();
    this.addClass('jp-RayOffload-page');
    this.id = `jp-RayOffload-job-${jobId}`;
    this.title.label = jobId;
    this.title.icon = rayIcon;
    this.title.closable = true;
    this.store = new LogStore(asked => void this.answer(asked));
    this.note = el(
      'div',
      { class: 'jp-RayOffload jp-RayOffload-note', role: 'status' },
      trans.__('Reading the job')
    );
    this.host = el('div', { class: 'jp-RayOffload-host' });
    this.node.append(this.note, this.host);
    const doings = {
      send: (intent: Intent) => void this.act(intent),
      open: (id: string) => void commands.execute(CommandIDs.openJob, { id }),
      notebook: () => void commands.execute(CommandIDs.openCell, { id: jobId })
    };
    this.panel = new JobPanel(
      () => this.job,
      this.store,
      this.host,
      this.end.signal,
      doings,
      trans
    );
    this.panel.onChoose = name => name === 'outputs' && void this.drawOutputs();
    this.poll = new Poll({
      auto: false,
      factory: () => this.readLog(),
      frequency: { interval: LOG_PAUSE, max: LOG_PAUSE_MOST, backoff: true },
      name: `jupyter-rayoffload:log-${jobId}`,
      standby: () => !this.isVisible || document.hidden
    });
    model.jobChanged.connect(this.onChange, this);
    model.changed.connect(this.onHealth, this);
    void this.load();
  }

  get ready(): Promise<void> {
    return this.loading;
  }

  override dispose(): void {
    if (this.isDisposed) return;
    this.end.abort();
    this.poll.dispose();
    this.area?.dispose();
    this.model.jobChanged.disconnect(this.onChange, this);
    this.model.changed.disconnect(this.onHealth, this);
    super.dispose();
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.panel.log.draw();
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    (this.host.querySelector<HTMLElement>('[role=tab][aria-selected=true]') ?? this.node).focus();
  }

  private load(): Promise<void> {
    this.loading = this.read().catch(error => this.fail(error));
    return this.loading;
  }

  private async read(): Promise<void> {
    const job = await this.model.api.job(this.jobId);
    if (this.isDisposed) return;
    this.job = job;
    this.title.label = job.view.name;
    this.title.caption = `${job.view.word} · ${this.jobId}`;
    this.note.hidden = true;
    this.host.hidden = false;
    this.panel.draw();
    if (!this.poll.isDisposed && !this.whole) await this.poll.start();
  }

  private fail(error: unknown): void {
    if (this.isDisposed) return;
    const gone = error instanceof ApiError && error.status === 404;
    if (this.job && !gone) return; // what is known stays; the sidebar says that the server is away
    const said = gone ? this.trans.__('The store does not keep this job any more') : words(error);
    const again = button('refresh', this.trans.__('Try again'), () => void this.load(), {
      text: true
    });
    this.note.replaceChildren(
      el('p', {}, said),
      el('div', { class: 'jp-RayOffload-buttons' }, again)
    );
    this.note.hidden = false;
    this.host.hidden = !this.job;
    if (gone) this.whole = true;
  }

  private onChange(_: unknown, id: string): void {
    if (id === this.jobId) void this.load();
  }

  /** What could not be read while the server was away is read now. */
  private onHealth(): void {
    if (!this.job && this.model.health === 'well' && this.note.querySelector('button'))
      void this.load();
  }

  // ------------------------------------------------------------------ the log

  /** Read what has been printed since; the last line may have grown. */
  private async readLog(): Promise<void> {
    const ended = this.job?.view.ended;
    const first = Math.max(0, this.store.total - 1);
    const { more, ...lines } = await this.model.api.lines(this.jobId, first);
    if (this.isDisposed) return;
    const known = JSON.stringify(lines);
    if (known !== this.known) {
      this.known = known;
      this.store.message({ log: { ...lines, seq: ++this.seq, changed: first } });
    }
    if (ended && !more) {
      this.whole = true;
      void this.poll.stop();
    }
  }

  private async answer({ want, find }: Asked): Promise<void> {
    try {
      if (want) {
        const { first, lines } = await this.model.api.lines(this.jobId, want[0], want[1]);
        this.store.message({ got: { first, lines } });
      } else if (find) {
        const found = await this.model.api.find(this.jobId, find.text, find.case);
        this.store.message({ found: { id: find.id, ...found } });
      }
    } catch {
      // It is asked for again when it is needed again.
    }
  }

  // ------------------------------------------------------------------ outputs

  private async drawOutputs(): Promise<void> {
    const { shown } = this.panel;
    let outputs;
    try {
      outputs = await this.model.api.outputs(this.jobId);
    } catch (error) {
      shown.replaceChildren(el('p', { role: 'status' }, words(error)));
      return;
    }
    const known = JSON.stringify(outputs);
    if (this.isDisposed || known === this.drawnOutputs) return;
    this.drawnOutputs = known;
    this.area?.dispose();
    const title = el('h3', {}, this.trans.__('Shown by the cell'));
    if (!outputs.length) {
      const nothing = this.trans.__('The cell has shown nothing but what stands in the log');
      shown.replaceChildren(title, el('p', { class: 'jp-RayOffload-quiet' }, nothing));
      return;
    }
    // The store has given nothing that the owner's own job has not signed: as if the cell had run here.
    const model = new OutputAreaModel({ values: outputs, trusted: true });
    this.area = new SimplifiedOutputArea({ model, rendermime: this.rendermime });
    const place = el('div');
    shown.replaceChildren(title, place);
    Widget.attach(this.area, place);
  }

  private async act({ do: verb, options }: Intent): Promise<void> {
    if (verb === 'save') {
      await this.save();
      this.redrawHead();
      return;
    }
    const commands: Record<string, string> = {
      attach: CommandIDs.attach,
      cancel: CommandIDs.cancel,
      rerun: CommandIDs.rerun,
      delete: CommandIDs.deleteJob
    };
    if (!(verb in commands)) return;
    const done = await this.commands.execute(commands[verb], {
      id: this.jobId,
      changes: (options ?? {}) as never
    });
    if (verb === 'delete' && done) this.parent?.close();
    else await this.load().then(() => this.redrawHead());
  }

  /** Give the whole log to the browser as a file, without colours. */
  private async save(): Promise<void> {
    const href = URL.createObjectURL(
      new Blob([await this.store.all(), '\n'], { type: 'text/plain' })
    );
    const link = el('a', { href, download: `${this.jobId}.log` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  }

  /** A button that has been pressed rests until something has come of it. */
  private redrawHead(): void {
    if (this.isDisposed) return;
    for (const name of ['head', 'reason']) delete this.panel.slots[name]?.key;
    this.panel.draw();
  }

  private job: Job | null = null;
  private loading: Promise<void> = Promise.resolve();
  private readonly panel: JobPanel;
  private readonly store: LogStore;
  private readonly note: HTMLElement;
  private readonly host: HTMLElement;
  private readonly poll: Poll;
  private readonly end = new AbortController();
  private area: SimplifiedOutputArea | null = null;
  private drawnOutputs = '';
  private known = '';
  private seq = 0;
  /** Whether all of the log is known. */
  private whole = false;
}

/** The view of a job, for the main area. */
export class JobWidget extends MainAreaWidget<JobContent> {
  constructor(content: JobContent) {
    super({ content });
    this.id = content.id;
    this.toolbar.hide();
  }
}

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
