import type { CodeCell } from '@jupyterlab/cells';
import type { IOutput } from '@jupyterlab/nbformat';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { IDisposable } from '@lumino/disposable';

import { jobOf, markOf, sameSource } from './cells';
import type { Model } from './model';

/** So long the kernel, where it lives, has the first word about its own panel, milliseconds. */
const KERNEL_FIRST = 1500;

/**
 * Brings the outputs of jobs that have ended home, into the cells of open notebooks: as if the cell had run here.
 *
 * A cell that says something else by now is left alone; the job view keeps what was shown.
 */
export class Homecoming implements IDisposable {
  constructor(
    private readonly model: Model,
    private readonly notebooks: INotebookTracker
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
    const ended = this.model.job(id)?.ended;
    if (ended && !this.endedAt.has(id)) this.endedAt.set(id, Date.now());
    this.lookSoon(KERNEL_FIRST);
  }

  private lookSoon(pause: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.lookAll(), pause);
  }

  /** Look at every open notebook for cells whose job has ended and whose outputs are not at home. */
  private lookAll(): void {
    if (this.isDisposed || this.model.health !== 'well' || document.hidden) return;
    this.notebooks.forEach(panel => {
      for (const cell of panel.content.widgets) {
        const mark = jobOf(cell);
        if (!mark || mark.home || this.under.has(mark.job)) continue;
        const job = this.model.job(mark.job);
        if (job && !job.ended) continue;
        void this.bring(panel, cell as CodeCell, mark.job);
      }
    });
  }

  private async bring(panel: NotebookPanel, cell: CodeCell, id: string): Promise<void> {
    this.under.add(id);
    try {
      const wait = this.kernelHasTheWord(panel, cell, id);
      if (wait > 0) {
        this.lookSoon(wait);
        return;
      }
      if (this.done.has(id)) return;
      const job = await this.model.api.job(id).catch(() => null);
      if (!job || !job.view.ended) return;
      if (!sameSource(cell.model.sharedModel.getSource(), job.spec.source)) {
        this.done.add(id);
        return;
      }
      const outputs = await this.model.api.outputs(id, true);
      await this.upToDate(panel);
      if (cell.isDisposed || jobOf(cell)?.job !== id || jobOf(cell)?.home) return;
      if (!sameSource(cell.model.sharedModel.getSource(), job.spec.source)) return;
      replace(cell, id, outputs);
      this.done.add(id);
    } catch {
      this.lookSoon(5 * KERNEL_FIRST);
    } finally {
      this.under.delete(id);
    }
  }

  /** A kernel that lives swaps its own panel for the record first: what it does later would undo this. */
  private kernelHasTheWord(panel: NotebookPanel, cell: CodeCell, id: string): number {
    const kernel = panel.sessionContext.session?.kernel;
    const mark = jobOf(cell);
    if (mark?.phase !== 'live' || !kernel || kernel.connectionStatus !== 'connected') return 0;
    if (!this.endedAt.has(id)) this.endedAt.set(id, Date.now());
    return this.endedAt.get(id)! + 2 * KERNEL_FIRST - Date.now();
  }

  /** Another tab may have brought them home and saved: then the file is read again instead. */
  private async upToDate(panel: NotebookPanel): Promise<void> {
    const { context } = panel;
    if (context.model.dirty || !context.contentsModel) return;
    const file = await context.urlResolver; // only so that the context is there
    void file;
    const known = context.contentsModel.last_modified;
    const there = await this.contents(panel.context.path);
    if (there && there > known) await context.revert();
  }

  contents: (path: string) => Promise<string | null> = async () => null;

  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly under = new Set<string>();
  private readonly done = new Set<string>();
  private readonly endedAt = new Map<string, number>();
}

/** Put the record and the outputs of a job where its panel stands; other outputs of the cell stay. */
export function replace(cell: CodeCell, id: string, outputs: IOutput[]): void {
  const here = cell.model.outputs.toJSON();
  const at = here.findIndex(output => markOf(output)?.job === id);
  if (at < 0) return;
  const others = here.filter((output, i) => i !== at && markOf(output)?.job !== id);
  const before = here.slice(0, at).filter(output => markOf(output)?.job !== id).length;
  const whole = [...others.slice(0, before), ...outputs, ...others.slice(before)];
  cell.model.trusted = true;
  cell.model.outputs.fromJSON(whole);
}
