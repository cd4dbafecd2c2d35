import { CodeCell, CodeCellModel } from '@jupyterlab/cells';
import type { IOutput } from '@jupyterlab/nbformat';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { Contents } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { ApiError, Away } from '../src/api';
import { Homecoming, replace } from '../src/home';
import { Model } from '../src/model';
import { ended, FakeServer, job, jobs } from './fakes';

const VIEW = 'application/vnd.jupyter.widget-view+json';

function stream(text: string): IOutput {
  return { output_type: 'stream', name: 'stdout', text };
}

function html(text: string): IOutput {
  return { output_type: 'display_data', data: { 'text/html': text }, metadata: {} };
}

/** What a job shows in the notebook, with the widget of its panel. */
function panelOf(id: string, mark: object = {}): IOutput {
  return {
    output_type: 'display_data',
    data: { [VIEW]: { model_id: `view-${id}`, version_major: 2, version_minor: 0 } },
    metadata: { rayoffload: { job: id, phase: 'live', ...mark } }
  };
}

/** The record of a job that has ended, as the server gives it. */
function record(id: string): IOutput {
  return {
    output_type: 'display_data',
    data: { 'text/plain': `record of ${id}` },
    metadata: { rayoffload: { job: id, phase: 'succeeded', home: true } }
  };
}

/** A cell without its editor, which would need a whole browser. */
function cellWith(source: string, outputs: IOutput[]): CodeCell {
  const model = new CodeCellModel();
  model.sharedModel.setSource(source);
  model.outputs.fromJSON(outputs);
  return Object.defineProperty(Object.create(CodeCell.prototype), 'model', { value: model });
}

/** Its outputs, in short. */
function shown(cell: CodeCell): unknown[] {
  return cell.model.outputs.toJSON().map(output => {
    const data = output.data as Record<string, unknown> | undefined;
    return output.text ?? data?.['text/plain'] ?? data?.['text/html'] ?? 'panel';
  });
}

describe('replace', () => {
  it('puts the outputs where the panel stood', () => {
    const cell = cellWith('', [stream('before'), panelOf('j-1'), html('after')]);
    replace(cell, 'j-1', [record('j-1'), html('one'), html('two')]);
    expect(shown(cell)).toEqual(['before', 'record of j-1', 'one', 'two', 'after']);
  });

  it('takes away whatever else tells of the job', () => {
    const again = panelOf('j-1');
    const cell = cellWith('', [html('a'), panelOf('j-1'), html('b'), again, html('c'), again]);
    replace(cell, 'j-1', [record('j-1')]);
    expect(shown(cell)).toEqual(['a', 'record of j-1', 'b', 'c']);
  });

  it('leaves other jobs alone, and where they stand', () => {
    const cell = cellWith('', [record('j-0'), panelOf('j-1'), record('j-2')]);
    replace(cell, 'j-1', [record('j-1')]);
    expect(shown(cell)).toEqual(['record of j-0', 'record of j-1', 'record of j-2']);
  });

  it('does nothing where the job is not', () => {
    const cell = cellWith('', [html('a'), panelOf('j-2')]);
    replace(cell, 'j-1', [record('j-1')]);
    expect(shown(cell)).toEqual(['a', 'panel']);
  });

  it('leaves only the others when there is nothing to put there', () => {
    const cell = cellWith('', [html('a'), panelOf('j-1'), html('b')]);
    replace(cell, 'j-1', []);
    expect(shown(cell)).toEqual(['a', 'b']);
  });

  it('keeps what outputs say of themselves, and shows them as those of a cell that ran here', () => {
    const cell = cellWith('', [panelOf('j-1')]);
    replace(cell, 'j-1', [record('j-1')]);
    expect(cell.model.outputs.toJSON()).toEqual([record('j-1')]);
    expect(cell.model.sharedModel.getOutputs()).toEqual([record('j-1')]);
    expect(cell.model.outputs.get(0).trusted).toBe(true);
  });
});

describe('outputs that come home', () => {
  let server: FakeServer;
  let model: Model;
  let home: Homecoming;
  let cells: CodeCell[];
  let panel: ReturnType<typeof makePanel>;
  let contents: { get: ReturnType<typeof vi.fn> };
  const widgetAdded = new Signal<object, NotebookPanel>({});

  beforeEach(() => {
    vi.useFakeTimers();
    server = new FakeServer();
    server.jobs = [job('j-1', 1)];
    server.sources = { 'j-1': 'x = 1' };
    server.outputs = { 'j-1': [record('j-1'), stream('hello')] };
    cells = [cellWith('%%ray_job\nx = 1', [panelOf('j-1')])];
    panel = makePanel();
    contents = { get: vi.fn(async () => ({ last_modified: '2027-01-01T00:00:00Z' })) };
  });

  afterEach(() => {
    home.dispose();
    model.dispose();
    vi.useRealTimers();
  });

  function makePanel() {
    return {
      content: { widgets: cells },
      context: {
        ready: Promise.resolve(),
        path: 'work/a.ipynb',
        model: { dirty: false },
        contentsModel: { last_modified: '2027-01-01T00:00:00Z' },
        revert: vi.fn(async () => undefined)
      },
      sessionContext: { session: null as { kernel: unknown } | null }
    };
  }

  /** A kernel that has these widgets. */
  function kernel(comms: string[], more: object = {}) {
    return {
      connectionStatus: 'connected',
      status: 'idle',
      requestCommInfo: vi.fn(async () => ({
        content: {
          status: 'ok',
          comms: Object.fromEntries(comms.map(id => [id, { target_name: 'jupyter.widget' }]))
        }
      })),
      ...more
    };
  }

  async function start(): Promise<void> {
    model = new Model(server.api, null, { interval: 3_600_000, max: 3_600_000, backoff: 1 });
    const tracker = {
      forEach: (act: (panel: NotebookPanel) => void) => act(panel as unknown as NotebookPanel),
      widgetAdded
    };
    home = new Homecoming(
      model,
      tracker as unknown as INotebookTracker,
      contents as unknown as Contents.IManager
    );
    await pass(1);
  }

  async function pass(milliseconds: number): Promise<void> {
    await vi.advanceTimersByTimeAsync(milliseconds);
  }

  /** The server says that the job has ended. */
  async function end(): Promise<void> {
    server.jobs = [job('j-1', 1, ended)];
    void model.refresh();
    await pass(1000);
  }

  /** How often the outputs were fetched. */
  const fetched = () => server.take().filter(asked => asked.startsWith('outputs')).length;

  it('come when the job has ended, and not before', async () => {
    await start();
    await pass(1000);
    expect(server.take().filter(asked => /^(job|outputs) /.test(asked))).toEqual([]);
    expect(shown(cells[0])).toEqual(['panel']);
    await end();
    expect(server.take()).toContain('outputs j-1 record');
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it('do not come from a job further down than the list, which has not ended', async () => {
    server.jobs = jobs(1, 250);
    await start();
    await pass(1000);
    expect(model.job('j-1')).toBeUndefined();
    expect(server.take()).toContain('job j-1');
    expect(shown(cells[0])).toEqual(['panel']);
    server.jobs[0] = job('j-1', 1, ended);
    void model.refresh();
    await pass(1000);
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it('are not asked for while nothing answers that knows of jobs', async () => {
    server.jobs = [];
    server.reason = 'cluster default does not run';
    await start();
    await pass(1000);
    expect(server.take().filter(asked => asked.startsWith('job '))).toEqual([]);
    server.reason = '';
    await end();
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it('come without asking the kernel where it has let go of the panel', async () => {
    cells[0].model.outputs.fromJSON([panelOf('j-1', { phase: 'succeeded' })]);
    panel.sessionContext.session = { kernel: kernel(['view-j-1']) };
    await start();
    await end();
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it('come once', async () => {
    await start();
    await end();
    expect(fetched()).toBe(1);
    void model.refresh();
    await pass(1000);
    expect(fetched()).toBe(0);
  });

  it('come into a notebook that is opened later', async () => {
    const { widgets } = panel.content;
    panel.content.widgets = [];
    await start();
    await end();
    expect(fetched()).toBe(0);
    panel.content.widgets = widgets;
    widgetAdded.emit(panel as unknown as NotebookPanel);
    await pass(1000);
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it('do not come again where they are', async () => {
    const at = panelOf('j-1', { phase: 'succeeded', home: true });
    cells[0].model.outputs.fromJSON([at]);
    await start();
    await end();
    expect(fetched()).toBe(0);
  });

  it('do not come into a cell that says something else by now', async () => {
    cells[0].model.sharedModel.setSource('%%ray_job\nx = 2');
    await start();
    await end();
    expect(shown(cells[0])).toEqual(['panel']);
  });

  it('do not come into a cell that shows a later job by now', async () => {
    await start();
    let answer = (_: IOutput[]) => {};
    const outputs = vi.spyOn(server.api, 'outputs');
    outputs.mockReturnValue(new Promise(resolve => (answer = resolve)));
    await end();
    expect(outputs).toHaveBeenCalledTimes(1);
    const later = [panelOf('j-1'), panelOf('j-2')];
    cells[0].model.outputs.fromJSON(later);
    answer([record('j-1')]);
    await pass(1000);
    expect(cells[0].model.outputs.toJSON()).toEqual(later);
  });

  it('are not asked for again when the store does not have the job any more', async () => {
    server.jobs = [];
    await start();
    await pass(1000);
    expect(server.take()).toContain('job j-1');
    void model.refresh();
    await pass(1000);
    expect(server.take()).not.toContain('job j-1');
    expect(shown(cells[0])).toEqual(['panel']);
  });

  it('are asked for again after the server was away', async () => {
    await start();
    const outputs = vi.spyOn(server.api, 'outputs').mockRejectedValueOnce(new Away('gone'));
    await end();
    expect(outputs).toHaveBeenCalledTimes(2); // at the end, and at the look a moment later
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it.each<[number, string]>([
    [503, 'StoreError'],
    [403, 'StoreRefused']
  ])('are asked for again after an error that may pass, such as %d', async (status, reason) => {
    await start();
    const fault = { message: 'Not now', reason, hint: '' };
    vi.spyOn(server.api, 'outputs').mockRejectedValueOnce(new ApiError(status, fault));
    await end();
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it('wait while the kernel has the panel, which brings them itself', async () => {
    const its = kernel(['view-j-1']);
    panel.sessionContext.session = { kernel: its };
    await start();
    await end();
    expect(its.requestCommInfo).toHaveBeenCalledWith({ target_name: 'jupyter.widget' });
    expect(fetched()).toBe(0);
    its.requestCommInfo.mockResolvedValue({ content: { status: 'ok', comms: {} } });
    await pass(3000);
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it.each<[string, () => unknown]>([
    ['has other widgets, for it was restarted', () => kernel(['view-j-9'])],
    ['is not connected', () => kernel(['view-j-1'], { connectionStatus: 'disconnected' })],
    [
      'does not answer and rests',
      () => kernel([], { requestCommInfo: () => new Promise(() => {}) })
    ]
  ])('come when the kernel %s', async (_, make) => {
    panel.sessionContext.session = { kernel: make() };
    await start();
    await end();
    await pass(6000);
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it('wait while the kernel is too busy to answer', async () => {
    const its = kernel([], { status: 'busy', requestCommInfo: () => new Promise(() => {}) });
    panel.sessionContext.session = { kernel: its };
    await start();
    await end();
    await pass(20_000);
    expect(fetched()).toBe(0);
    its.status = 'idle';
    await pass(20_000);
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it('come by reading the file again where another page has saved them', async () => {
    contents.get.mockResolvedValue({ last_modified: '2027-01-01T00:00:09Z' });
    panel.context.revert.mockImplementation(async () => {
      panel.context.contentsModel.last_modified = '2027-01-01T00:00:09Z';
      cells[0].model.outputs.fromJSON([record('j-1'), stream('saved')]);
    });
    await start();
    await end();
    expect(contents.get).toHaveBeenCalledWith('work/a.ipynb', { content: false });
    expect(panel.context.revert).toHaveBeenCalledTimes(1);
    expect(shown(cells[0])).toEqual(['record of j-1', 'saved']);
  });

  it('never throw away what the person has not saved', async () => {
    contents.get.mockResolvedValue({ last_modified: '2027-01-01T00:00:09Z' });
    panel.context.model.dirty = true;
    await start();
    await end();
    expect(panel.context.revert).not.toHaveBeenCalled();
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it('do not come while the page is hidden', async () => {
    const hidden = vi.spyOn(document, 'hidden', 'get').mockReturnValue(true);
    await start();
    await end();
    expect(fetched()).toBe(0);
    hidden.mockReturnValue(false);
    document.dispatchEvent(new Event('visibilitychange'));
    await pass(1000);
    expect(shown(cells[0])).toEqual(['record of j-1', 'hello']);
  });

  it('do not come after the end', async () => {
    await start();
    home.dispose();
    await end();
    expect(fetched()).toBe(0);
  });
});
