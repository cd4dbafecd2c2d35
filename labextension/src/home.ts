import type { CodeCell } from '@jupyterlab/cells';
import type { IOutput } from '@jupyterlab/nbformat';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { Contents } from '@jupyterlab/services';
import type { IDisposable } from '@lumino/disposable';

import { ApiError } from './api';
import { jobOf, markOf, sameSource } from './cells';
import type { Model } from './model';

/** What comes within this time leads to one look; so long a kernel may take to say whether a panel is its own. */
const PAUSE = 300;
const KERNEL_SECONDS = 5;
/** What the server answers about a job that is not there (any more). */
const GONE = [404, 410];

/**
 * Brings the outputs of jobs that have ended home, into the cells of open notebooks: as if the cell had run here.
 *
 * A cell that says something else by now is left alone; the job view keeps what was shown.
 */
export class Homecoming implements IDisposable {
  constructor(
    private readonly model: Model,
    private readonly notebooks: INotebookTracker,
    private readonly contents: Contents.IManager
  ) {
    model.jobChanged.connect(this.onChange, this);
    model.changed.connect(this.lookAll, this);
    notebooks.widgetAdded.connect(this.onNotebook, this);
    document.addEventListener('visibilitychange', this.onVisible);
  }

  isDisposed = false;

  dispose(): void {
    this.isDisposed = true;
    clearTimeout(this.timer);
    this.model.jobChanged.disconnect(this.onChange, this);
    this.model.changed.disconnect(this.lookAll, this);
    this.notebooks.widgetAdded.disconnect(this.onNotebook, this);
    document.removeEventListener('visibilitychange', this.onVisible);
  }

  private onNotebook(_: unknown, panel: NotebookPanel): void {
    void panel.context.ready.then(() => this.lookAll());
  }

  private readonly onVisible = () => void this.lookAll();

  private onChange(_: unknown, id: string): void {
    if (this.model.job(id)?.ended) this.lookSoon(PAUSE);
  }

  private lookSoon(pause: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.lookAll(), pause);
  }

  /** Look at every open notebook for cells whose job has ended and whose outputs are not at home. */
  private lookAll(): void {
    if (this.isDisposed || this.model.health !== 'well' || document.hidden) return;
    if (this.model.reason) return; // nothing answers that knows of jobs, as while the cluster starts
    this.notebooks.forEach(panel => {
      for (const cell of panel.content.widgets) {
        const mark = jobOf(cell);
        if (!mark || mark.home) continue;
        // By cell: the same job may stand in several, such as one that was attached to.
        if ([this.under, this.done].some(jobs => jobs.get(cell.model) === mark.job)) continue;
        const job = this.model.job(mark.job);
        if (job && !job.ended) continue;
        void this.bring(panel, cell as CodeCell, mark.job);
      }
    });
  }

  private async bring(panel: NotebookPanel, cell: CodeCell, id: string): Promise<void> {
    const { model } = cell;
    this.under.set(model, id);
    try {
      const job = await this.model.api.job(id);
      if (!job.view.ended) return;
      if (await this.isOfKernel(panel, cell)) {
        this.lookSoon(5 * PAUSE);
        return;
      }
      const outputs = await this.model.api.outputs(id, true);
      if (await this.reread(panel)) return this.lookSoon(PAUSE);
      const same =
        !cell.isDisposed && sameSource(cell.model.sharedModel.getSource(), job.spec.source);
      if (same && jobOf(cell)?.job === id) replace(cell, id, outputs);
      this.done.set(model, id);
    } catch (error) {
      // One that the store does not keep any more stays as it is; else it is tried again at the next change: also
      // where it was refused (403), for somebody may log in again, or mend the store's password.
      if (error instanceof ApiError && GONE.includes(error.status)) this.done.set(model, id);
    } finally {
      this.under.delete(model);
    }
  }

  /**
   * Whether the kernel still has the panel: it swaps in the record itself, and what it does later would undo ours.
   * A kernel that was restarted knows nothing of it.
   */
  private async isOfKernel(panel: NotebookPanel, cell: CodeCell): Promise<boolean> {
    const kernel = panel.sessionContext.session?.kernel;
    if (!kernel || kernel.connectionStatus !== 'connected' || jobOf(cell)?.phase !== 'live')
      return false;
    const views = cell.model.outputs.toJSON().map(output => viewOf(output));
    const late = new Promise<null>(resolve =>
      setTimeout(() => resolve(null), 1000 * KERNEL_SECONDS)
    );
    const asked = kernel.requestCommInfo({ target_name: 'jupyter.widget' }).catch(() => null);
    const reply = await Promise.race([asked, late]);
    if (reply === null) return kernel.status === 'busy';
    if (reply.content.status !== 'ok') return false;
    const { comms } = reply.content;
    return views.some(view => view !== null && view in comms);
  }

  /** Another tab may have brought them home and saved: then the file is read again instead. */
  private async reread({ context }: NotebookPanel): Promise<boolean> {
    if (context.model.dirty || !context.contentsModel) return false;
    const there = await this.contents.get(context.path, { content: false }).catch(() => null);
    if (
      !there ||
      Date.parse(there.last_modified) <= Date.parse(context.contentsModel.last_modified)
    )
      return false;
    await context.revert();
    return true;
  }

  private timer: ReturnType<typeof setTimeout> | undefined;
  /** Cells whose job is being looked at, and those whose job needs no look any more. */
  private readonly under = new WeakMap<object, string>();
  private readonly done = new WeakMap<object, string>();
}

function viewOf(output: IOutput): string | null {
  const data = output.data as Record<string, { model_id?: string } | undefined> | undefined;
  return data?.['application/vnd.jupyter.widget-view+json']?.model_id ?? null;
}

/** Put the record and the outputs of a job where its panel stands; other outputs of the cell stay. */
export function replace(cell: CodeCell, id: string, outputs: IOutput[]): void {
  const here = cell.model.outputs.toJSON();
  const at = here.findIndex(output => markOf(output)?.job === id);
  if (at < 0) return;
  const others = here.filter(output => markOf(output)?.job !== id);
  const whole = [...others.slice(0, at), ...outputs, ...others.slice(at)];
  // What somebody else has put beside them is not ours to trust.
  if (!others.length) cell.model.trusted = true;
  cell.model.outputs.fromJSON(whole);
}
