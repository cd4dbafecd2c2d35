import { CommandRegistry } from '@lumino/commands';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { ApiError, Away } from '../src/api';
import { CommandIDs } from '../src/ids';
import { Model } from '../src/model';
import { StatusItem } from '../src/status';
import { cluster, ended, FakeServer, job, trans } from './fakes';

let server: FakeServer;
let model: Model;
let item: StatusItem;
let opened: number;
let changed: number;

beforeEach(() => {
  vi.useFakeTimers({ now: new Date(2027, 0, 15, 12, 34, 56) });
  server = new FakeServer();
  const commands = new CommandRegistry();
  [opened, changed] = [0, 0];
  commands.addCommand(CommandIDs.openSidebar, { execute: () => void opened++ });
  model = new Model(server.api, null, { interval: 3_600_000, max: 3_600_000, backoff: 1 });
  item = new StatusItem(model, commands, trans, () => void changed++);
});

afterEach(() => {
  item.dispose();
  model.dispose();
  vi.useRealTimers();
});

async function refresh(): Promise<void> {
  void model.refresh();
  await vi.advanceTimersByTimeAsync(1);
}

const now = () => Date.now() / 1000;
const mark = () => item.node.querySelector('.jp-RayOffload-state');

/** What is to be seen of it. */
async function said(): Promise<string | null> {
  await refresh();
  return item.says ? item.node.textContent : null;
}

describe('the line in the status bar', () => {
  it('is not there before the first answer, and while there is nothing to say', async () => {
    expect(item.says).toBe(false);
    expect(await said()).toBeNull();
    server.jobs = [job('a', 1, { ...ended, finished: now() })];
    expect(await said()).toBeNull();
  });

  it('counts what runs', async () => {
    server.jobs = [job('a', 1), job('b', 2, { state: 'pending' }), job('c', 3, ended)];
    expect(await said()).toBe('Ray: 2 running');
    expect(mark()).toBeNull();
    server.jobs.shift();
    expect(await said()).toBe('Ray: 1 running');
  });

  it.each(['failed', 'lost'])('counts what has ended as %s, for a while', async state => {
    const failed = { ...ended, state };
    server.jobs = [
      job('a', 1, { ...failed, finished: now() - 60 }),
      job('b', 2, { ...failed, finished: now() - 300 }),
      job('old', 3, { ...failed, finished: now() - 601 }),
      job('never', 4, { ...failed, finished: null })
    ];
    expect(await said()).toBe('Ray: 2 failed');
    expect(mark()?.classList).toContain('jp-mod-failed');
    await vi.advanceTimersByTimeAsync(400_000);
    expect(await said()).toBe('Ray: 1 failed');
    await vi.advanceTimersByTimeAsync(200_000);
    expect(await said()).toBeNull();
  });

  it('tells what a cluster that starts waits for', async () => {
    server.clusters = [cluster('default', { phase: 'starting', reason: 'Waiting for a node' })];
    expect(await said()).toBe('Ray: starting, waiting for a node');
    server.clusters = [cluster('default', { phase: 'starting' })];
    expect(await said()).toBe('Ray: starting');
  });

  it('tells that a cluster is suspended', async () => {
    server.clusters = [cluster('default', { phase: 'suspended' })];
    expect(await said()).toBe('Ray: suspended');
  });

  it('tells of the most important thing only', async () => {
    server.clusters = [cluster('default', { phase: 'suspended' })];
    server.jobs = [job('a', 1, { ...ended, state: 'failed', finished: now() })];
    expect(await said()).toBe('Ray: 1 failed');
    server.clusters = [cluster('default', { phase: 'starting' })];
    expect(await said()).toBe('Ray: starting');
    server.jobs.push(job('b', 2));
    expect(await said()).toBe('Ray: 1 running');
    expect(mark()).toBeNull();
  });

  it('tells since when the server is away', async () => {
    server.jobs = [job('a', 1)];
    await refresh();
    server.error = new Away('gone');
    expect(await said()).toBe('Ray: unknown since 12:34');
    expect(mark()?.classList).toContain('jp-mod-unknown');
    server.error = null;
    expect(await said()).toBe('Ray: 1 running');
  });

  it.each([403, 404])(
    'is not there without the server extension, or access to it (%i)',
    async at => {
      server.jobs = [job('a', 1)];
      await refresh();
      server.error = new ApiError(at, { message: 'No', reason: '', hint: '' });
      expect(await said()).toBeNull();
    }
  );

  it('opens the sidebar', async () => {
    server.jobs = [job('a', 1)];
    await refresh();
    const button = item.node.querySelector('button')!;
    expect(button.title).toBe('Open the Ray sidebar');
    button.click();
    expect(opened).toBe(1);
  });

  it('is drawn again only when it says something else', async () => {
    server.jobs = [job('a', 1)];
    await refresh();
    const button = item.node.querySelector('button');
    const times = changed;
    server.jobs.push(job('b', 2, ended));
    await refresh();
    expect(item.node.querySelector('button')).toBe(button);
    // whether it is there at all is asked each time
    expect(changed).toBe(times + 1);
    server.jobs.push(job('c', 3));
    await refresh();
    expect(item.node.textContent).toBe('Ray: 2 running');
  });

  it('is not drawn after the end', async () => {
    server.jobs = [job('a', 1)];
    await refresh();
    item.dispose();
    const times = changed;
    server.jobs = [];
    await refresh();
    expect(changed).toBe(times);
  });
});
