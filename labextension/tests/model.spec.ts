import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { ApiError, Away } from '../src/api';
import { Model } from '../src/model';
import { cluster, ended, FakeServer, job, jobs } from './fakes';

const INTERVAL = 1000;
/** So long an event may wait for others, milliseconds. */
const SOON = 150;

let server: FakeServer;
let model: Model;

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
});

afterEach(() => {
  model.dispose();
  vi.useRealTimers();
});

/** A model that has looked once. */
async function start(): Promise<void> {
  const frequency = { interval: INTERVAL, max: 10 * INTERVAL, backoff: 2 };
  model = new Model(server.api, server.stream, frequency);
  await pass(1);
}

async function pass(milliseconds: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

/** The next look, in time. */
async function look(): Promise<void> {
  server.take();
  await pass(INTERVAL + 1);
}

const ids = () => model.jobs.map(({ id }) => id);

/** How often the list of jobs was looked at since the last time. */
const looks = () => server.take().filter(asked => asked === 'clusters').length;

describe('looking', () => {
  it('asks for everything at first, and then only for what may have changed', async () => {
    server.jobs = jobs(1, 3);
    server.profiles = [{ name: 'small', title: 'Small', default: true, fields: [] }];
    await start();
    expect(server.take()).toEqual(['status', 'clusters', 'jobs 200', 'profiles']);
    expect(model.health).toBe('well');
    expect(model.profiles).toEqual(server.profiles);
    await look();
    expect(server.take()).toEqual(['clusters', 'jobs 50']);
    expect(model.profiles).toEqual(server.profiles);
  });

  it('is asking until the first answer', async () => {
    const open = server.hold();
    await start();
    expect(model.health).toBe('asking');
    open();
    await pass(0);
    expect(model.health).toBe('well');
  });

  it('tells after each look', async () => {
    await start();
    const told = vi.fn();
    model.changed.connect(told);
    await look();
    expect(told).toHaveBeenCalledTimes(1);
  });

  it('looks at once when it is asked to', async () => {
    await start();
    server.jobs = jobs(1, 1);
    const done = model.refresh();
    await pass(1);
    await done;
    expect(ids()).toEqual(['j-1']);
  });

  it('takes the cluster that cells would start where there is none', async () => {
    server.clusters = [];
    await start();
    expect(server.take()).toContain('cluster default');
    expect(model.clusters).toHaveLength(1);
    expect(model.cluster).toMatchObject({ name: 'default', phase: 'none' });
  });

  it('sends cells to the default cluster, or else to the first', async () => {
    server.clusters = [cluster('big'), cluster('default'), cluster('small')];
    await start();
    expect(model.cluster?.name).toBe('default');
    server.clusters = [cluster('big'), cluster('small')];
    await look();
    expect(model.cluster?.name).toBe('big');
  });

  it("goes by the server's clock", async () => {
    server.clusters = [cluster('default', {}, { now: Date.now() / 1000 + 100 })];
    await start();
    expect(model.now()).toBeCloseTo(Date.now() / 1000 + 100, 1);
  });

  it('knows when it looks again', async () => {
    await start();
    expect(model.next - Date.now() / 1000).toBeCloseTo(INTERVAL / 1000, 1);
  });
});

describe('jobs', () => {
  it('come newest first', async () => {
    server.jobs = [job('old', 1), job('new', 9), job('middle', 5)];
    await start();
    expect(ids()).toEqual(['new', 'middle', 'old']);
    server.jobs.push(job('newest', 10));
    await look();
    expect(ids()).toEqual(['newest', 'new', 'middle', 'old']);
  });

  it('tell of those that have changed, and of no others', async () => {
    server.jobs = jobs(1, 2);
    await start();
    const told: string[] = [];
    model.jobChanged.connect((_, id) => void told.push(id));
    const same = model.job('j-2');
    server.jobs[0] = job('j-1', 1, ended);
    await look();
    expect(told).toEqual(['j-1']);
    expect(model.job('j-1')?.state).toBe('succeeded');
    expect(ids()).toEqual(['j-2', 'j-1']);
    expect(model.job('j-2')).toBe(same);
  });

  it('go when they have been deleted', async () => {
    server.jobs = jobs(1, 3);
    await start();
    const told: string[] = [];
    model.jobChanged.connect((_, id) => void told.push(id));
    server.jobs.splice(1, 1);
    await look();
    expect(ids()).toEqual(['j-3', 'j-1']);
    expect(model.job('j-2')).toBeUndefined();
    expect(told).toEqual(['j-2']);
    server.jobs = [];
    await look();
    expect(ids()).toEqual([]);
  });

  it('stay when the store does not answer, which says why', async () => {
    server.jobs = jobs(1, 3);
    await start();
    server.reason = 'the cluster is suspended';
    await look();
    expect(model.health).toBe('well');
    expect(model.reason).toBe('the cluster is suspended');
    expect(ids()).toHaveLength(3);
    server.reason = '';
    await look();
    expect(model.reason).toBe('');
  });

  it('are found by the server, and stay then', async () => {
    server.jobs = jobs(1, 300);
    await start();
    expect(model.job('j-7')).toBeUndefined();
    expect(await model.search('j-7')).toContain('j-7');
    expect(model.job('j-7')).toBeDefined();
    await look();
    expect(model.job('j-7')).toBeDefined();
    expect(await model.search('no such')).toEqual(new Set());
  });
});

describe('older jobs', () => {
  it('are read page by page until there are no more', async () => {
    server.jobs = jobs(1, 450);
    await start();
    expect([model.jobs.length, model.older]).toEqual([200, true]);
    server.take();
    await model.more();
    expect(server.take()).toEqual(['jobs 200 before 251']);
    expect([model.jobs.length, model.older]).toEqual([400, true]);
    await model.more();
    expect([model.jobs.length, model.older]).toEqual([450, false]);
    expect(ids()).toEqual(
      jobs(1, 450)
        .map(({ id }) => id)
        .reverse()
    );
    server.take();
    await model.more();
    expect(server.take()).toEqual([]);
  });

  it('tell of it', async () => {
    server.jobs = jobs(1, 201);
    await start();
    const told = vi.fn();
    model.changed.connect(told);
    await model.more();
    expect(told).toHaveBeenCalledTimes(1);
  });

  it('stay at later looks, and so does the place where to read on', async () => {
    server.jobs = jobs(1, 450);
    await start();
    await model.more();
    server.jobs.push(job('j-451', 451));
    await look();
    expect(model.jobs).toHaveLength(401);
    await model.more();
    expect([model.jobs.length, model.older]).toEqual([451, false]);
  });

  it('are not asked for again when all are there', async () => {
    server.jobs = jobs(1, 60);
    await start();
    expect(model.older).toBe(false);
    await look();
    expect([model.jobs.length, model.older]).toEqual([60, false]);
  });

  it('are not asked for when none are left', async () => {
    server.jobs = jobs(1, 250);
    await start();
    expect(model.older).toBe(true);
    server.jobs = jobs(1, 10);
    await look();
    expect([model.jobs.length, model.older]).toEqual([10, false]);
  });

  it('have no gap when many new ones came between two looks', async () => {
    server.jobs = jobs(1, 250);
    await start();
    server.jobs = jobs(1, 350);
    await look();
    while (model.older) await model.more();
    expect(model.jobs).toHaveLength(350);
  });
});

describe('events', () => {
  beforeEach(async () => {
    server.jobs = jobs(1, 3);
    await start();
    server.take();
  });

  it('that come together lead to one look, soon', async () => {
    for (let i = 0; i < 5; i++) server.tell('j-1');
    await pass(10);
    server.tell('j-2');
    await pass(SOON);
    expect(looks()).toBe(1);
    await pass(INTERVAL / 2);
    expect(looks()).toBe(0);
    server.tell('j-1');
    await pass(SOON);
    expect(looks()).toBe(1);
  });

  it('without a job lead to one as well', async () => {
    server.tell(undefined, 'https://schema.jupyter.org/jupyter_rayoffload/cluster/v1');
    await pass(SOON);
    expect(looks()).toBe(1);
  });

  it('of others lead to none', async () => {
    server.tell('j-1', 'https://events.jupyter.org/jupyter_server/contents_service/v1');
    server.tell('j-1', 'https://schema.jupyter.org/jupyter_rayoffload2/job/v1');
    await pass(SOON);
    expect(looks()).toBe(0);
  });

  it('that come during a look lead to another one', async () => {
    const open = server.hold();
    server.tell('j-1');
    await pass(SOON); // this look has read the jobs and waits for its answer
    server.jobs[1] = job('j-2', 2, ended);
    server.tell('j-2');
    await pass(SOON);
    open();
    await pass(SOON);
    expect(looks()).toBe(2);
    expect(model.job('j-2')?.state).toBe('succeeded');
  });

  it('are no reason to look twice at the same time', async () => {
    const open = server.hold();
    for (let i = 0; i < 5; i++) {
      server.tell('j-1');
      await pass(SOON);
    }
    expect(looks()).toBe(1);
    open();
    await pass(SOON);
    expect(looks()).toBe(1);
  });
});

describe('an action of the person', () => {
  it('is seen even when a look is under way', async () => {
    server.jobs = jobs(1, 1);
    await start();
    const open = server.hold();
    void model.refresh();
    await pass(1);
    server.jobs = [];
    const done = model.refresh();
    open();
    await pass(1);
    await done;
    expect(ids()).toEqual([]);
  });
});

describe('events of jobs further down than the first page', () => {
  beforeEach(async () => {
    server.jobs = jobs(1, 100);
    await start();
    server.take();
  });

  const change = (id: string) => {
    const at = server.jobs.findIndex(known => known.id === id);
    server.jobs[at] = { ...server.jobs[at], ...ended };
  };

  it('fetch them', async () => {
    change('j-20');
    server.tell('j-20');
    await pass(SOON);
    expect(server.take()).toEqual(['clusters', 'jobs 50', 'jobs 50 j-20']);
    expect(model.job('j-20')?.state).toBe('succeeded');
    await look();
    expect(server.take()).toEqual(['clusters', 'jobs 50']);
  });

  it('drop them when they are gone', async () => {
    server.jobs = server.jobs.filter(({ id }) => id !== 'j-20');
    server.tell('j-20');
    await pass(SOON);
    expect(model.job('j-20')).toBeUndefined();
    expect(model.jobs).toHaveLength(99);
  });

  it('do not take another job for it, which only names it', async () => {
    server.jobs = server.jobs.filter(({ id }) => id !== 'j-20');
    server.jobs.push(job('other', 0.5, { name: 'again j-20' }));
    server.tell('j-20');
    await pass(SOON);
    expect(model.job('j-20')).toBeUndefined();
    expect(model.job('other')).toBeUndefined();
  });

  it('find it among newer ones that name it', async () => {
    server.jobs[89] = job('j-90', 90, { name: 'again j-20' });
    change('j-20');
    server.tell('j-20');
    await pass(SOON);
    expect(model.job('j-20')?.state).toBe('succeeded');
  });

  it('need no request for those on the first page, or for unknown ones', async () => {
    server.tell('j-99');
    server.tell('unknown');
    await pass(SOON);
    expect(server.take()).toEqual(['clusters', 'jobs 50']);
  });

  it('are not forgotten when they come during a look', async () => {
    const open = server.hold();
    server.tell('j-20');
    await pass(SOON);
    open();
    server.gate = new Promise(resolve => setTimeout(resolve, 2 * SOON));
    await pass(1); // the job itself has been read and is under way
    change('j-20');
    change('j-21');
    server.tell('j-20');
    server.tell('j-21');
    await pass(6 * SOON);
    expect(model.job('j-20')?.state).toBe('succeeded');
    expect(model.job('j-21')?.state).toBe('succeeded');
  });

  it('are not forgotten when the look fails', async () => {
    change('j-20');
    server.error = new Away('gone');
    server.tell('j-20');
    await pass(SOON);
    expect(model.health).toBe('away');
    server.error = null;
    await pass(3 * INTERVAL);
    expect(model.health).toBe('well');
    expect(model.job('j-20')?.state).toBe('succeeded');
  });
});

describe('health', () => {
  const fault = { message: 'No', reason: 'HTTPError', hint: '' };

  it.each<[string, Error]>([
    ['away', new Away('No')],
    ['missing', new ApiError(404, fault)],
    ['refused', new ApiError(403, fault)],
    ['away', new ApiError(500, fault)],
    ['away', new TypeError('No')]
  ])('is %s after %o, and well again later', async (health, error) => {
    server.jobs = jobs(1, 2);
    await start();
    const told = vi.fn();
    model.changed.connect(told);
    server.error = error;
    const before = Date.now() / 1000;
    await look();
    expect(model.health).toBe(health);
    expect(model.said).toBe('No');
    expect(model.since).toBeGreaterThan(before);
    expect(told).toHaveBeenCalled();
    expect(ids()).toEqual(['j-2', 'j-1']);
    server.error = null;
    server.take();
    await pass(5 * INTERVAL);
    expect(model.health).toBe('well');
    expect(server.take().slice(0, 4)).toEqual(['status', 'clusters', 'jobs 50', 'profiles']);
  });

  it('remembers since when', async () => {
    await start();
    server.error = new Away('gone');
    await look();
    const { since } = model;
    await pass(20 * INTERVAL);
    expect(model.since).toBe(since);
    server.error = null;
    await pass(40 * INTERVAL);
    expect(model.health).toBe('well');
    server.error = new Away('gone again');
    await look();
    expect(model.since).toBeGreaterThan(since + 20);
  });

  it('is looked at less and less often', async () => {
    await start();
    server.error = new Away('gone');
    // The longest pauses that may come.
    vi.spyOn(Math, 'random').mockReturnValue(0.999);
    await pass(30 * INTERVAL);
    const tries = server.take().filter(asked => asked === 'status').length;
    expect(tries).toBeGreaterThan(2);
    expect(tries).toBeLessThan(10);
  });

  it('fails at first as well', async () => {
    server.error = new ApiError(404, fault);
    await start();
    expect(model.health).toBe('missing');
  });
});

describe('dispose', () => {
  it('ends looking and listening', async () => {
    server.jobs = jobs(1, 1);
    await start();
    const told = vi.fn();
    model.changed.connect(told);
    const timers = vi.getTimerCount();
    server.tell('j-1');
    expect(vi.getTimerCount()).toBe(timers + 1);
    server.take();
    model.dispose();
    model.dispose();
    expect(vi.getTimerCount()).toBe(timers);
    expect(model.isDisposed).toBe(true);
    server.tell('j-1');
    await pass(10 * INTERVAL);
    expect(server.take()).toEqual([]);
    expect(told).not.toHaveBeenCalled();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('ends a look that is under way', async () => {
    await start();
    const open = server.hold();
    void model.refresh().catch(() => undefined);
    await pass(1);
    const told = vi.fn();
    model.changed.connect(told);
    server.tell('j-1');
    await pass(SOON);
    model.dispose();
    open();
    server.take();
    await pass(10 * INTERVAL);
    expect(told).not.toHaveBeenCalled();
    expect(server.take()).toEqual([]);
  });

  it('needs no events', async () => {
    model = new Model(server.api);
    await pass(1);
    expect(model.health).toBe('well');
  });
});
