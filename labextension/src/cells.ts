import type { ISessionContext } from '@jupyterlab/apputils';
import type { Cell } from '@jupyterlab/cells';
import { CodeCell } from '@jupyterlab/cells';
import type { IOutput } from '@jupyterlab/nbformat';
import type { Notebook, NotebookPanel } from '@jupyterlab/notebook';
import { NotebookActions } from '@jupyterlab/notebook';
import { OutputArea } from '@jupyterlab/outputarea';

/** What our own output says of itself in its metadata (display.py). */
export interface OutputMark {
  job: string;
  phase: string;
  home?: boolean;
}

/** The job that an output tells of. */
export function markOf(output: IOutput): OutputMark | null {
  const metadata = output.metadata as { rayoffload?: Partial<OutputMark> } | undefined;
  const mark = metadata?.rayoffload;
  return mark && typeof mark.job === 'string' && typeof mark.phase === 'string'
    ? (mark as OutputMark)
    : null;
}

/** The last job of a cell, by its outputs. */
export function jobOf(cell: Cell): OutputMark | null {
  if (!(cell instanceof CodeCell) || cell.isDisposed) return null;
  const outputs = cell.model.sharedModel.getOutputs() as IOutput[];
  for (const output of [...outputs].reverse()) {
    const mark = markOf(output);
    if (mark) return mark;
  }
  return null;
}

/** The cell of a notebook whose last job this is. */
export function cellOf(notebook: Notebook, job: string): CodeCell | null {
  const found = notebook.widgets.find(cell => jobOf(cell)?.job === job);
  return (found as CodeCell | undefined) ?? null;
}

/** Whether a cell still says what its job ran; the job knows it without the magic's line. */
export function sameSource(cell: string, source: string): boolean {
  const [here, there] = [cell.trimEnd(), source.trimEnd()];
  if (here === there) return true;
  if (!here.endsWith(there)) return false;
  const before = here.slice(0, here.length - there.length).trim();
  return /^%%ray_job\b[^\n]*(\\\n[^\n]*)*$/.test(before);
}

const MAGIC = /^\s*%%ray_job\b/;

/** The source of a cell as a job: what is one already stays as it is. */
export function asJob(source: string, line = ''): string {
  if (MAGIC.test(source)) return source;
  return `%%ray_job ${line}`.trimEnd() + `\n${source}`;
}

/** Whether it may be run as a job: other magics of a whole cell have their own way. */
export function canBeJob(source: string): boolean {
  return source.trim() !== '' && (MAGIC.test(source) || !/^\s*%%/.test(source));
}

/** Run a cell on the cluster, in its own place and without changing its text. */
export async function runOnRay(panel: NotebookPanel, cell: CodeCell, line: string): Promise<void> {
  const { sessionContext } = panel;
  const source = cell.model.sharedModel.getSource();
  if (!canBeJob(source)) return;
  await loadMagics(sessionContext);
  if (MAGIC.test(source)) {
    await CodeCell.execute(cell, sessionContext, { deletedCells: panel.model?.deletedCells ?? [] });
    return;
  }
  const { model } = cell;
  model.clearExecution();
  cell.outputHidden = false;
  cell.setPrompt('*');
  model.trusted = true;
  try {
    const metadata = {
      cellId: model.sharedModel.getId(),
      deletedCells: panel.model?.deletedCells ?? []
    };
    const reply = await OutputArea.execute(
      asJob(source, line),
      cell.outputArea,
      sessionContext,
      metadata
    );
    model.executionCount = reply ? reply.content.execution_count : null;
  } finally {
    if (model.executionCount === null && !cell.isDisposed) cell.setPrompt('');
  }
}

/** The magics are there without a line for them in the notebook. */
async function loadMagics(sessionContext: ISessionContext): Promise<void> {
  const kernel = sessionContext.session?.kernel;
  if (!kernel) throw new Error('The notebook has no kernel');
  const code = '%load_ext jupyter_rayoffload';
  const future = kernel.requestExecute({ code, silent: true, store_history: false });
  const reply = await future.done;
  if (reply.content.status === 'error') {
    const { ename, evalue } = reply.content;
    throw new Error(`${ename}: ${evalue}`);
  }
}

/** Put a line into a new cell below the active one, and run it. */
export async function runBelow(panel: NotebookPanel, code: string): Promise<void> {
  await panel.context.ready;
  await panel.sessionContext.ready;
  await loadMagics(panel.sessionContext);
  NotebookActions.insertBelow(panel.content);
  panel.content.activeCell?.model.sharedModel.setSource(code);
  await NotebookActions.run(panel.content, panel.sessionContext);
}
