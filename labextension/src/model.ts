import type { Event } from '@jupyterlab/services';
import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import type { Api } from './api';
import { ApiError, Away } from './api';
import type { Cluster, JobSummary, Profile } from './tokens';

/** How the server stands: `missing` without its extension, `away` when it does not answer. */
export type Health = 'asking' | 'well' | 'missing' | 'refused' | 'away';

/** Between two looks when nothing is heard of a change, milliseconds; at most so much while looking fails. */
const CALM = 10_000;
const LONGEST = 60_000;
/** Changes that come within this time lead to one look, milliseconds. */
const GATHERED = 120;
/** Jobs of one page of the list. */
const PAGE = 200;
const PREFIX = 'https://schema.jupyter.org/jupyter_rayoffload/';

/** Clusters and jobs as far as the server has told; looks again when it says that something has changed. */
export class Model implements IDisposable {
  constructor(
    readonly api: Api,
    events: Event.Stream | null = null,
    frequency = { interval: CALM, max: LONGEST, backoff: 2 }
  ) {
    this.poll = new Poll({
      auto: true,
      factory: () => this.look(),
      frequency,
      name: 'jupyter-rayoffload:look',
      standby: 'when-hidden'
    });
    this.events = events;
    events?.connect(this.onEvent, this);
  }

  readonly poll: Poll;
  health: Health = 'asking';
  /** Since when the server does not answer, seconds since the epoch. */
  since = 0;
  /** What it said instead of an answer. */
  said = '';
  clusters: Cluster[] = [];
  profiles: Profile[] = [];
  /** Why there are no jobs to be seen; empty where there are. */
  reason = '';
  /** Whether there may be older jobs than those that are here. */
  older = false;
  /** Server's clock less ours, seconds. */
  offset = 0;

  get jobs(): JobSummary[] {
    this.sorted ??= [...this.byId.values()].sort((a, b) => b.created - a.created);
    return this.sorted;
  }

  job(id: string): JobSummary | undefined {
    return this.byId.get(id);
  }

  /** The cluster that cells go to. */
  get cluster(): Cluster | undefined {
    return this.clusters.find(cluster => cluster.name === 'default') ?? this.clusters[0];
  }

  /** When the server is asked again, seconds since the epoch. */
  get next(): number {
    const { timestamp, interval } = this.poll.state;
    return (timestamp + interval) / 1000;
  }

  /** The server's clock, seconds since the epoch. */
  now = () => Date.now() / 1000 + this.offset;

  get changed(): ISignal<this, void> {
    return this.changedSignal;
  }

  /** Ids of jobs that have just been heard of. */
  get jobChanged(): ISignal<this, string> {
    return this.jobSignal;
  }

  get isDisposed(): boolean {
    return this.poll.isDisposed;
  }

  dispose(): void {
    if (this.isDisposed) return;
    clearTimeout(this.timer);
    this.events?.disconnect(this.onEvent, this);
    this.poll.dispose();
    Signal.clearData(this);
  }

  /** Look now; resolves when it has been done, also in vain: `health` says so then. */
  async refresh(): Promise<void> {
    await this.lookAgain();
    await this.poll.tick;
  }

  /** Read the next older jobs. */
  async more(): Promise<void> {
    if (!this.older || this.before === undefined) return;
    const page = await this.api.jobs({ limit: PAGE, before: this.before });
    this.take(page.jobs);
    this.follow(page.next);
    this.changedSignal.emit();
  }

  /** Ask the server for jobs with a text that may be anywhere in them; the matching ids. */
  async search(text: string): Promise<Set<string>> {
    const page = await this.api.jobs({ limit: PAGE, text });
    this.take(page.jobs);
    return new Set(page.jobs.map(job => job.id));
  }

  /** A look that is under way may not see what has just changed, and the poll passes over another one so long. */
  private async lookAgain(): Promise<void> {
    if (this.looking) await this.poll.tick.catch(() => undefined);
    await this.poll.refresh();
  }

  private async look(): Promise<void> {
    const first = this.health !== 'well';
    this.looking = true;
    try {
      if (first) await this.api.status();
      const [clusters, page] = await Promise.all([
        this.api.clusters(),
        this.api.jobs({ limit: this.byId.size ? 50 : PAGE })
      ]);
      if (first) this.profiles = await this.api.profiles();
      if (!clusters.length) clusters.push(await this.api.cluster('default'));
      this.clusters = clusters;
      const now = clusters[0].view.now;
      if (typeof now === 'number') this.offset = now - Date.now() / 1000;
      this.reason = page.complete ? '' : page.reason;
      if (page.complete) await this.takeNewest(page.jobs, page.next);
      this.health = 'well';
    } catch (error) {
      this.fail(error);
      this.changedSignal.emit();
      throw error; // the poll waits longer
    } finally {
      this.looking = false;
    }
    this.changedSignal.emit();
  }

  private fail(error: unknown): void {
    if (this.health !== 'away') this.since = Date.now() / 1000;
    this.said = error instanceof Error ? error.message : String(error);
    if (error instanceof Away) this.health = 'away';
    else if (error instanceof ApiError && error.status === 404) this.health = 'missing';
    else if (error instanceof ApiError && error.status === 403) this.health = 'refused';
    else this.health = 'away';
  }

  /** Take in the newest jobs: one that should be among them and is not has been deleted. */
  private async takeNewest(jobs: JobSummary[], next?: number): Promise<void> {
    const ids = new Set(jobs.map(job => job.id));
    const oldest = next === undefined ? -Infinity : (jobs[jobs.length - 1]?.created ?? Infinity);
    for (const job of this.byId.values()) {
      if (job.created >= oldest && !ids.has(job.id)) this.drop(job.id);
    }
    this.take(jobs);
    // Read on below these where they do not reach down to those of the look before.
    if (next === undefined || oldest > this.newest) this.follow(next);
    this.newest = jobs[0]?.created ?? -Infinity;
    // What was heard of stands further down.
    for (const id of [...this.unheard]) {
      this.unheard.delete(id);
      if (ids.has(id) || !this.byId.has(id)) continue;
      const { jobs } = await this.api.jobs({ limit: 50, text: id }); // newer ones may name it
      const found = jobs.find(job => job.id === id);
      if (found) this.take([found]);
      else this.drop(id);
    }
  }

  private follow(next?: number): void {
    this.before = next;
    this.older = next !== undefined;
  }

  private take(jobs: JobSummary[]): void {
    for (const job of jobs) {
      const known = this.byId.get(job.id);
      if (known && JSON.stringify(known) === JSON.stringify(job)) continue;
      this.byId.set(job.id, job);
      this.sorted = null;
      this.jobSignal.emit(job.id);
    }
  }

  private drop(id: string): void {
    this.byId.delete(id);
    this.sorted = null;
    this.jobSignal.emit(id);
  }

  private onEvent(_: unknown, event: Event.Emission): void {
    if (!event.schema_id.startsWith(PREFIX)) return;
    const { id } = event as unknown as { id?: unknown };
    if (typeof id === 'string') this.unheard.add(id);
    if (this.timer !== undefined) return;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      void this.lookAgain();
    }, GATHERED);
  }

  private readonly byId = new Map<string, JobSummary>();
  private sorted: JobSummary[] | null = null;
  private before: number | undefined;
  /** When the newest job of the last look was made. */
  private newest = -Infinity;
  private looking = false;
  private readonly unheard = new Set<string>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly events: Event.Stream | null;
  private readonly changedSignal = new Signal<this, void>(this);
  private readonly jobSignal = new Signal<this, string>(this);
}
