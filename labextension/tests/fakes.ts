// A server that lives in the test: what it has, and what it was asked.
import type { IOutput } from '@jupyterlab/nbformat';
import type { Event } from '@jupyterlab/services';
import { nullTranslator } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';

import type { Api } from '../src/api';
import { ApiError } from '../src/api';
import type { Cluster, ClusterView, JobSummary, JobsPage, Profile } from '../src/tokens';

export const trans = nullTranslator.load('');

/** A job that runs, unless something else is said. */
export function job(id: string, created: number, more: Partial<JobSummary> = {}): JobSummary {
  return {
    id,
    name: `name of ${id}`,
    kind: 'cell',
    phase: 'running',
    ended: false,
    word: 'Running',
    state: 'running',
    reason: '',
    fact: '',
    notebook: '',
    cluster: 'default',
    created,
    begun: created,
    finished: null,
    attempt: 1,
    ...more
  };
}

/** Jobs `j-1`, `j-2`, … each made a second after the one before. */
export function jobs(first: number, last: number): JobSummary[] {
  return Array.from({ length: last - first + 1 }, (_, i) => job(`j-${first + i}`, first + i));
}

export const ended = {
  phase: 'succeeded',
  ended: true,
  word: 'Succeeded',
  state: 'succeeded'
} satisfies Partial<JobSummary>;

export function cluster(name: string, more: Partial<Cluster> = {}, view: object = {}): Cluster {
  return { name, phase: 'running', ...more, view: { name, ...view } as ClusterView };
}

type Query = { limit: number; before?: number; text?: string };

export class FakeServer {
  jobs: JobSummary[] = [];
  clusters: Cluster[] = [cluster('default')];
  profiles: Profile[] = [];
  /** Sources and outputs of jobs, by id. */
  sources: Record<string, string> = {};
  outputs: Record<string, IOutput[]> = {};
  /** Why the store does not answer. */
  reason = '';
  /** What every request fails with. */
  error: Error | null = null;
  /** What every request fails with once something was done. */
  afterwards: Error | null = null;
  /** Requests wait for it. */
  gate: Promise<void> = Promise.resolve();
  /** What was asked, such as `clusters` or `jobs 200`. */
  asked: string[] = [];

  readonly events = new Signal<object, Event.Emission>(this);

  readonly api = {
    status: () => this.give('status', () => ({})),
    profiles: () => this.give('profiles', () => [...this.profiles]),
    clusters: () => this.give('clusters', () => [...this.clusters]),
    cluster: (name: string) => this.give(`cluster ${name}`, () => cluster(name, { phase: 'none' })),
    jobs: (query: Query) => {
      const { limit, before, text } = query;
      const asked = ['jobs', limit, before && `before ${before}`, text].filter(Boolean).join(' ');
      return this.give(asked, () => this.page(query));
    },
    job: (id: string) =>
      this.give(`job ${id}`, () => {
        const { ended } = this.known(id);
        return { spec: { id, source: this.sources[id] ?? '' }, view: { ended } };
      }),
    stop: (id: string) => this.change(`stop ${id}`, null),
    forget: (id: string) => this.change(`forget ${id}`, null),
    rerun: (id: string) => this.change(`rerun ${id}`, { spec: { id: `${id}-again` } }),
    suspend: (name: string) => this.change(`suspend ${name}`, null),
    delete: (name: string) => this.change(`delete ${name}`, null),
    outputs: (id: string, record = false) =>
      this.give(`outputs ${id}${record ? ' record' : ''}`, () => this.outputs[id] ?? [])
  } as unknown as Api;

  get stream(): Event.Stream {
    return this.events as unknown as Event.Stream;
  }

  /** Say that something has changed. */
  tell(id?: string, schema = 'https://schema.jupyter.org/jupyter_rayoffload/job/v1'): void {
    this.events.emit({ schema_id: schema, id } as unknown as Event.Emission);
  }

  /** What was asked since the last time. */
  take(): string[] {
    return this.asked.splice(0);
  }

  /** Requests do not get an answer until this is called. */
  hold(): () => void {
    let open = () => {};
    this.gate = new Promise(resolve => (open = resolve));
    return open;
  }

  /** The answer tells how it was when it was asked. */
  private async give<R>(asked: string, answer: () => R): Promise<R> {
    this.asked.push(asked);
    const { error } = this;
    const given = error ? null : structuredClone(answer());
    await this.gate;
    if (error) throw error;
    return given as R;
  }

  private async change<R>(asked: string, answer: R): Promise<R> {
    const given = await this.give(asked, () => answer);
    this.error ??= this.afterwards;
    return given;
  }

  private known(id: string): JobSummary {
    const found = this.jobs.find(known => known.id === id);
    if (found) return found;
    throw new ApiError(404, { message: `No job ${id}`, reason: 'JobNotFound', hint: '' });
  }

  private page({ limit, before = Infinity, text = '' }: Query): JobsPage {
    if (this.reason) return { jobs: [], complete: false, reason: this.reason };
    const found = [...this.jobs]
      .sort((a, b) => b.created - a.created)
      .filter(({ created, id, name }) => created < before && `${id} ${name}`.includes(text))
      .slice(0, limit);
    const next = found.length === limit ? { next: found[limit - 1].created } : {};
    return { jobs: found, complete: true, reason: '', ...next };
  }
}
