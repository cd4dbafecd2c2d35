import { ServerConnection } from '@jupyterlab/services';
import { beforeEach, describe, expect, it, vi } from 'vitest';

import { Api, ApiError, Away } from '../src/api';

const BASE = 'http://localhost:8888/user/ada/';
const ROOT = `${BASE}rayoffload/api/`;

let asked: Request[];
let answer: () => Response | Promise<Response>;
let api: Api;

beforeEach(() => {
  asked = [];
  answer = () => json({});
  const settings = ServerConnection.makeSettings({
    baseUrl: BASE,
    init: {}, // without `no-store`, which puts the time into each url
    fetch: async request => {
      asked.push(request as Request);
      return answer();
    }
  });
  api = new Api(settings);
});

function json(body: unknown, status = 200): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { 'Content-Type': 'application/json' }
  });
}

function html(status: number, statusText = ''): Response {
  const headers = { 'Content-Type': 'text/html' };
  return new Response('<h1>Not here</h1>', { status, statusText, headers });
}

/** What a call has asked: method, url below the root, and body. */
async function request(call: Promise<unknown>): Promise<[string, string, unknown]> {
  await call;
  expect(asked).toHaveLength(1);
  const [{ method, url }] = asked;
  const text = await asked[0].text();
  expect(url.startsWith(ROOT)).toBe(true);
  return [method, url.slice(ROOT.length), text ? JSON.parse(text) : null];
}

/** What a call fails with. */
async function failure(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => expect.fail('it should have failed'),
    error => error
  );
}

describe('what is asked', () => {
  it.each<[string, (api: Api) => Promise<unknown>, string, string, unknown]>([
    ['status', a => a.status(), 'GET', 'status', null],
    ['profiles', a => a.profiles(), 'GET', 'profiles', null],
    ['clusters', a => a.clusters(), 'GET', 'clusters', null],
    ['cluster', a => a.cluster('default'), 'GET', 'clusters/default', null],
    ['start', a => a.start('big'), 'POST', 'clusters', { name: 'big' }],
    [
      'start with options',
      a => a.start('big', { profile: 'gpu', workers: 2 }),
      'POST',
      'clusters',
      { name: 'big', profile: 'gpu', workers: 2 }
    ],
    ['scale', a => a.scale('big', 0), 'PATCH', 'clusters/big', { workers: 0 }],
    ['suspend', a => a.suspend('big'), 'POST', 'clusters/big/suspend', null],
    ['resume', a => a.resume('big'), 'POST', 'clusters/big/resume', null],
    ['delete', a => a.delete('big'), 'DELETE', 'clusters/big?force=true', null],
    ['job', a => a.job('j-1'), 'GET', 'jobs/j-1', null],
    ['stop', a => a.stop('j-1'), 'POST', 'jobs/j-1/stop', null],
    ['rerun', a => a.rerun('j-1'), 'POST', 'jobs/j-1/rerun', {}],
    ['rerun with changes', a => a.rerun('j-1', { gpus: 1 }), 'POST', 'jobs/j-1/rerun', { gpus: 1 }],
    ['forget', a => a.forget('j-1'), 'DELETE', 'jobs/j-1', null],
    ['outputs', a => a.outputs('j-1'), 'GET', 'jobs/j-1/outputs?record=false', null],
    [
      'outputs as a record',
      a => a.outputs('j-1', true),
      'GET',
      'jobs/j-1/outputs?record=true',
      null
    ],
    ['lines', a => a.lines('j-1', 0, 99), 'GET', 'jobs/j-1/lines?first=0&last=99', null],
    ['lines to the end', a => a.lines('j-1', -200), 'GET', 'jobs/j-1/lines?first=-200', null],
    ['find', a => a.find('j-1', 'x', true), 'GET', 'jobs/j-1/find?text=x&case=true', null]
  ])('%s', async (_, call, method, path, body) => {
    expect(await request(call(api))).toEqual([method, path, body]);
  });

  it('leaves out what is not given, and keeps zero and false', async () => {
    const query = { limit: 0, before: undefined, text: '', live: false };
    expect((await request(api.jobs(query)))[1]).toBe('jobs?limit=0&live=false');
  });

  it('writes texts so that the server reads them as they are', async () => {
    const text = 'a&b=c #é+%2F';
    const [, path] = await request(api.jobs({ text }));
    expect(new URL(path, ROOT).searchParams.get('text')).toBe(text);
    expect(path).not.toContain('#');
  });

  it('says that a body is JSON, for the server refuses others', async () => {
    await api.start('big');
    expect(asked[0].headers.get('Content-Type')).toBe('application/json');
  });
});

describe('what is given', () => {
  it('unwraps lists', async () => {
    answer = () => json({ profiles: [{ name: 'p' }], clusters: [{ name: 'c' }], outputs: [1] });
    expect(await api.profiles()).toEqual([{ name: 'p' }]);
    expect(await api.clusters()).toEqual([{ name: 'c' }]);
    expect(await api.outputs('j-1')).toEqual([1]);
  });

  it('gives the rest as it is', async () => {
    const page = { jobs: [{ id: 'j-1' }], complete: true, reason: '', next: 5 };
    answer = () => json(page);
    expect(await api.jobs({})).toEqual(page);
  });

  it('gives nothing for an answer without a body', async () => {
    answer = () => new Response(null, { status: 204 });
    expect(await api.forget('j-1')).toBeUndefined();
  });
});

describe('faults', () => {
  it('tells what the server says of them', async () => {
    const fault = { message: 'No such job', reason: 'JobNotFound', hint: 'Look at the list' };
    answer = () => json(fault, 404);
    const error = await failure(api.job('j-1'));
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ status: 404, message: 'No such job', fault });
  });

  it('fills in what the server leaves out', async () => {
    answer = () => json({ message: 'No' }, 409);
    const error = await failure(api.stop('j-1'));
    expect(error).toMatchObject({ fault: { message: 'No', reason: 'HTTPError', hint: '' } });
  });

  it('tells the status where the answer is no JSON', async () => {
    answer = () => html(404, 'Not Found');
    const error = await failure(api.status());
    expect(error).toBeInstanceOf(ApiError);
    const fault = { message: '404 Not Found', reason: 'HTTPError', hint: '' };
    expect(error).toMatchObject({ status: 404, message: '404 Not Found', fault });
  });

  it('tells the status where the answer only claims to be JSON', async () => {
    const headers = { 'Content-Type': 'application/json' };
    answer = () => new Response('{"mess', { status: 500, statusText: 'Oh', headers });
    expect(await failure(api.status())).toMatchObject({ status: 500, message: '500 Oh' });
  });

  it('is away when nothing answers', async () => {
    answer = () => Promise.reject(new TypeError('Failed to fetch'));
    const error = await failure(api.status());
    expect(error).toBeInstanceOf(Away);
    expect((error as Away).message).toBe('Failed to fetch');
  });

  it('is away when a connection hangs', async () => {
    const limit = new AbortController();
    const timeout = vi.spyOn(AbortSignal, 'timeout').mockReturnValue(limit.signal);
    answer = () =>
      new Promise((_, reject) => {
        asked[0].signal.addEventListener('abort', () => reject(new Error('signal timed out')));
      });
    const failed = failure(api.status());
    limit.abort();
    expect(await failed).toBeInstanceOf(Away);
    expect(timeout.mock.calls[0][0]).toBeGreaterThan(30_000); // the server may wait so long for its store
  });

  it.each([502, 503, 504])('is away when only a proxy answers, with %i', async status => {
    answer = () => html(status, 'Gateway');
    const error = await failure(api.status());
    expect(error).toBeInstanceOf(Away);
    expect((error as Away).message).toBe('Gateway');
  });

  it('is away when a page to log in comes instead', async () => {
    answer = () => html(200, 'OK');
    expect(await failure(api.profiles())).toBeInstanceOf(Away);
    expect(await failure(api.status())).toBeInstanceOf(Away);
  });

  it('is not away when the server itself says 503', async () => {
    answer = () => json({ message: 'No store', reason: 'StoreError', hint: 'Wait' }, 503);
    const error = await failure(api.job('j-1'));
    expect(error).toBeInstanceOf(ApiError);
    expect(error).not.toBeInstanceOf(Away);
    expect(error).toMatchObject({ status: 503, fault: { reason: 'StoreError', hint: 'Wait' } });
  });

  it('is not away when another error comes without JSON', async () => {
    answer = () => html(500);
    expect(await failure(api.status())).toBeInstanceOf(ApiError);
  });
});
