import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type * as T from './tokens';

/** Why the server did not do what was asked. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly fault: T.Fault
  ) {
    super(fault.message);
  }
}

/** The server does not answer at all. */
export class Away extends Error {}

/** So long an answer may take, milliseconds: longer than the server itself waits for store and cluster. */
const PATIENCE = 90_000;

type Query = Record<string, string | number | boolean | undefined>;

/** The REST interface of the server extension. */
export class Api {
  constructor(private readonly settings: ServerConnection.ISettings) {}

  status = () => this.get<T.Status>('status');
  profiles = async () => (await this.get<{ profiles: T.Profile[] }>('profiles')).profiles;
  clusters = async () => (await this.get<{ clusters: T.Cluster[] }>('clusters')).clusters;
  cluster = (name: string) => this.get<T.Cluster>(`clusters/${name}`);
  start = (name: string, options: object = {}) =>
    this.send('POST', 'clusters', { name, ...options });
  scale = (name: string, workers: number) => this.send('PATCH', `clusters/${name}`, { workers });
  suspend = (name: string) => this.send('POST', `clusters/${name}/suspend`);
  resume = (name: string) => this.send('POST', `clusters/${name}/resume`);
  /** The person has been told which jobs end. */
  delete = (name: string) => this.send('DELETE', `clusters/${name}?force=true`);

  jobs = (query: Query) => this.get<T.JobsPage>('jobs', query);
  job = (id: string) => this.get<T.Job>(`jobs/${id}`);
  stop = (id: string) => this.send('POST', `jobs/${id}/stop`);
  rerun = (id: string, changes: object = {}) =>
    this.send<T.Job>('POST', `jobs/${id}/rerun`, changes);
  forget = (id: string) => this.send('DELETE', `jobs/${id}`);
  outputs = async (id: string, record = false) =>
    (await this.get<T.Outputs>(`jobs/${id}/outputs`, { record })).outputs;
  lines = (id: string, first: number, last?: number) =>
    this.get<T.LogLines>(`jobs/${id}/lines`, { first, last });
  find = (id: string, text: string, exact: boolean) =>
    this.get<T.Found>(`jobs/${id}/find`, { text, case: exact });

  private get<R>(path: string, query: Query = {}): Promise<R> {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
    const text = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
    return this.send<R>('GET', text ? `${path}?${text}` : path);
  }

  private async send<R = T.Cluster>(method: string, path: string, body?: object): Promise<R> {
    const url = URLExt.join(this.settings.baseUrl, 'rayoffload/api', path);
    const headers = { 'Content-Type': 'application/json' }; // else the browser says that it is text
    const signal = AbortSignal.timeout(PATIENCE); // a connection that hangs would never be asked anew
    const init = { method, signal, ...(body && { body: JSON.stringify(body), headers }) };
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, init, this.settings);
    } catch (error) {
      throw new Away(error instanceof Error ? error.message : String(error));
    }
    const { status } = response;
    const others = (response.ok && status !== 204) || [502, 503, 504].includes(status);
    if (others && !isJson(response)) {
      throw new Away(response.statusText); // a proxy, for a server that is not there, or a page to log in
    }
    const answer = status === 204 ? undefined : await response.json().catch(() => undefined);
    if (!response.ok) throw new ApiError(status, fault(response, answer));
    return answer as R;
  }
}

function isJson(response: Response): boolean {
  return (response.headers.get('Content-Type') ?? '').includes('json');
}

function fault(response: Response, answer: Partial<T.Fault> | undefined): T.Fault {
  return {
    message: answer?.message ?? `${response.status} ${response.statusText}`,
    reason: answer?.reason ?? 'HTTPError',
    hint: answer?.hint ?? ''
  };
}
