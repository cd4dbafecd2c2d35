import type { IOutput } from '@jupyterlab/nbformat';
import { describe, expect, it } from 'vitest';

import { asJob, canBeJob, markOf, sameSource } from '../src/cells';

describe('markOf', () => {
  const output = (rayoffload: unknown): IOutput => ({
    output_type: 'display_data',
    data: {},
    metadata: { rayoffload } as IOutput['metadata']
  });

  it('reads what an output of ours says of itself', () => {
    const mark = { job: 'j-1', phase: 'live' };
    expect(markOf(output(mark))).toEqual(mark);
    expect(markOf(output({ ...mark, home: true }))).toEqual({ ...mark, home: true });
  });

  it.each([
    ['no metadata', { output_type: 'stream', name: 'stdout', text: 'x' }],
    ['metadata of others', { output_type: 'display_data', data: {}, metadata: { isolated: true } }],
    ['nothing', output(null)],
    ['no job', output({ phase: 'live' })],
    ['no phase', output({ job: 'j-1' })],
    ['a job that is no text', output({ job: 1, phase: 'live' })],
    ['a phase that is no text', output({ job: 'j-1', phase: {} })]
  ])('takes %s for none', (_, other: IOutput) => {
    expect(markOf(other)).toBeNull();
  });
});

describe('asJob', () => {
  it('puts the magic before the source', () => {
    expect(asJob('print(1)')).toBe('%%ray_job\nprint(1)');
    expect(asJob('print(1)', '--gpus 1 ')).toBe('%%ray_job --gpus 1\nprint(1)');
  });

  it('keeps the source as it is', () => {
    expect(asJob('\n  x = 1\n\n')).toBe('%%ray_job\n\n  x = 1\n\n');
    expect(asJob('%time f()')).toBe('%%ray_job\n%time f()');
  });

  it.each(['%%ray_job\nx', '%%ray_job --gpus 1\nx', '\n  %%ray_job\nx', '%%ray_job'])(
    'leaves what is a job already: %j',
    source => {
      expect(asJob(source, '--gpus 2')).toBe(source);
    }
  );

  it('does not take another name for it', () => {
    expect(asJob('%%ray_jobs\nx')).toBe('%%ray_job\n%%ray_jobs\nx');
    expect(asJob('# %%ray_job\nx')).toBe('%%ray_job\n# %%ray_job\nx');
  });
});

describe('canBeJob', () => {
  it.each(['x = 1', '%time f()', '!ls', '%%ray_job\nx', ' \n%%ray_job --gpus 1\nx', 'x\n%%time'])(
    'lets %j',
    source => {
      expect(canBeJob(source)).toBe(true);
    }
  );

  it.each(['', ' \n\t\n', '%%bash\nls', '\n  %%time\nf()', '%%ray_jobs\nx', '%%ray_attach j-1'])(
    'does not let %j',
    source => {
      expect(canBeJob(source)).toBe(false);
    }
  );
});

describe('sameSource', () => {
  it.each([
    ['x = 1', 'x = 1'],
    ['x = 1\n\n', 'x = 1'],
    ['x = 1', 'x = 1\n'],
    ['%%ray_job\nx = 1', 'x = 1'],
    ['%%ray_job --gpus 1 --name "a b"\nx = 1\n', 'x = 1\n'],
    ['\n%%ray_job\n\nx = 1', 'x = 1'],
    ['%%ray_job --gpus 1 \\\n    --name a \\\n    --wait\nx = 1', 'x = 1'],
    ['%%ray_job\nx = 1', '%%ray_job\nx = 1'],
    ['%%ray_job\n  x = 1', '  x = 1'],
    ['', '']
  ])('takes %j for %j', (cell, source) => {
    expect(sameSource(cell, source)).toBe(true);
  });

  it.each([
    ['x = 2', 'x = 1'],
    ['y = 0\nx = 1', 'x = 1'],
    ['max = 1', 'x = 1'],
    ['%%ray_job\nx = 2', 'x = 1'],
    ['x = 1', 'y = 0\nx = 1'],
    ['%%ray_job\ny = 0\nx = 1', 'x = 1'],
    ['%%ray_job \\\n  --wait\ny = 0\nx = 1', 'x = 1'],
    ['%%ray_jobs\nx = 1', 'x = 1'],
    ['%%bash\nls', 'ls'],
    ['%%ray_job\n# x = 1', 'x = 1'],
    ['%%ray_job\nmax = 1', 'x = 1'],
    ['x = 1', ''],
    ['%%ray_job\nx = 1', '']
  ])('does not take %j for %j', (cell, source) => {
    expect(sameSource(cell, source)).toBe(false);
  });
});
