import { MainAreaWidget } from '@jupyterlab/apputils';
import { OutputAreaModel, SimplifiedOutputArea } from '@jupyterlab/outputarea';
import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import type { Message } from '@lumino/messaging';
import { Poll } from '@lumino/polling';
import { Widget } from '@lumino/widgets';

import { button, el } from '#panel/dom.js';
import type { Asked } from '#panel/log.js';
import { LogStore } from '#panel/log.js';
import type { Intent } from '#panel/panel.js';

import { ApiError } from './api';
import { words } from './dialogs';
import { rayIcon } from './icons';
import { CommandIDs } from './ids';
import { JobPanel } from './jobpanel';
import type { Model } from './model';
import type { Job } from './tokens';

/** Between two looks at a log that grows, milliseconds. */
const LOG_PAUSE = 500;
/** The same while the page does not answer, at most. */
const LOG_PAUSE_MOST = 10_000;

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
