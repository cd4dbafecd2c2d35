// What the server gives; jupyter_rayoffload/server/openapi.yaml describes each.
import type { JobView } from '#panel/panel.js';
import type { IOutput } from '@jupyterlab/nbformat';

/** A job in a list. Times are seconds since the epoch. */
export interface JobSummary {
  id: string;
  name: string;
  kind: string;
  phase: string;
  ended: boolean;
  word: string;
  state: string;
  reason: string;
  fact: string;
  notebook: string;
  cluster: string;
  created: number;
  begun: number | null;
  finished: number | null;
  attempt: number;
}

export interface JobsPage {
  jobs: JobSummary[];
  complete: boolean;
  reason: string;
  next?: number;
}

/** A cell of a table: a text with marks, or one with a drawing, a moment, or a link to another job. */
export type TableCell = string | { text?: string; mark?: string; job?: string; at?: number };

export interface Table {
  title: string;
  columns: Array<{ title: string; number: boolean }>;
  rows: TableCell[][];
  empty: string;
}

export interface Fact {
  title: string;
  text?: string;
  at?: number;
  day?: boolean;
  notebook?: string;
}

export interface Bar {
  name: string;
  from: number;
  share: number;
  text: string;
  begin: number;
}

export interface JobPage {
  facts: Fact[];
  source: string;
  outputs: Table[];
  inputs: Table[];
  environment: Table[];
  bars: Bar[];
  timeline: Table[];
}

export interface Job {
  spec: { id: string; source: string; kind?: string; notebook?: string; label?: string };
  phase: string;
  cluster?: string;
  view: JobView;
  page: JobPage;
}

export interface ClusterAction {
  do: string;
  icon: string;
  label: string;
  text: boolean;
  rests?: boolean;
  href?: string;
  confirm?: { question: string; keep: string };
}

export interface ClusterView {
  name: string;
  state: string;
  word: string;
  actions: ClusterAction[];
  workers: { count: number; text: string; rests: boolean } | null;
  lines: string[];
  words: Record<string, string>;
  [more: string]: unknown;
}

export interface Fault {
  message: string;
  reason: string;
  hint: string;
}

export interface Cluster {
  name: string;
  kind?: string;
  phase: string;
  reason?: string;
  dashboard?: string;
  workers?: number;
  since?: number;
  fault?: Fault;
  view: ClusterView;
}

export interface Profile {
  name: string;
  title: string;
  description?: string;
  default: boolean;
  fields: unknown[];
}

export interface Status {
  version: string;
  owner: string;
  cluster: Cluster;
  store: { answers: boolean; reason: string };
}

export interface LogLines {
  first: number;
  lines: string[];
  total: number;
  more: boolean;
}

export interface Found {
  lines: number[];
  count: number;
}

export type Outputs = { outputs: IOutput[] };
