import { CommandRegistry } from '@lumino/commands';
import { Widget } from '@lumino/widgets';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { ApiError, Away } from '../src/api';
import { Clusters } from '../src/clusters';
import { CommandIDs } from '../src/ids';
import { Model } from '../src/model';
import type { Cluster } from '../src/tokens';
import { cluster, FakeServer, trans } from './fakes';

const VIEW = {
  group: '',
  state: 'running',
  word: 'Running',
  status: '',
  actions: [],
  meters: [],
  workers: null,
  lines: ['Up for a while'],
  form: null,
  history: [],
  words: { start: 'Start cluster', profile: 'Profile', asked: 'Asked for' }
};
const PROFILES = [
  { name: 'small', title: 'Small', default: false, fields: [] },
  { name: 'gpu', title: 'GPU', default: true, fields: [] }
];

let server: FakeServer;
let model: Model;
let widget: Clusters;
/** What was asked to be started, and how that ends. */
let started: object[];
let outcome: Promise<void>;

const known = (name: string, more: Partial<Cluster> = {}) =>
  cluster(name, { kind: 'kubernetes', ...more }, VIEW);

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  server.clusters = [known('default')];
  server.profiles = PROFILES;
  started = [];
  outcome = Promise.resolve();
});

afterEach(() => {
  widget.dispose();
  model.dispose();
  vi.useRealTimers();
});

async function pass(milliseconds = 50): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

async function show(): Promise<void> {
  model = new Model(server.api, null, { interval: 3_600_000, max: 3_600_000, backoff: 1 });
  const commands = new CommandRegistry();
  commands.addCommand(CommandIDs.start, {
    execute: args => {
      started.push(args);
      return outcome;
    }
  });
  widget = new Clusters(model, commands, trans);
  Widget.attach(widget, document.body);
  await pass();
}

const $ = <T extends HTMLElement>(selector: string) => widget.node.querySelector<T>(selector);
const add = () => $<HTMLButtonElement>('[aria-label="New cluster"]')!;
const form = () => $('.jp-RayOffload-newCluster');
const field = () => $<HTMLInputElement>('.jp-RayOffload-newCluster input[type=text]')!;
const submit = () => $<HTMLButtonElement>('.jp-RayOffload-newCluster .jp-mod-primary')!;
const names = () =>
  [...widget.node.querySelectorAll<HTMLElement>('.jp-RayOffload-clusterItem')].map(
    item => item.dataset.name
  );

async function enter(name: string): Promise<void> {
  field().value = name;
  submit().click();
  await pass();
}

describe('a further cluster', () => {
  it.each([
    ['kubernetes', false],
    ['embedded', true],
    ['address', true]
  ])('can be made where the site makes them: %s', async (kind, hidden) => {
    server.clusters = [known('default', { kind })];
    await show();
    expect(add().hidden).toBe(hidden);
  });

  it('cannot be asked for while the server is away', async () => {
    await show();
    server.error = new Away('gone');
    void model.refresh();
    await pass();
    expect(add().hidden).toBe(true);
  });

  it('has a name and a profile', async () => {
    await show();
    add().click();
    expect(document.activeElement).toBe($('input[value=gpu]')); // the default one
    $<HTMLInputElement>('input[value=small]')!.click();
    await enter('nightly');
    const options = { profile: 'small', options: {} };
    expect(started).toEqual([{ name: 'nightly', options, told: true }]);
    expect(form()).toBeNull();
  });

  it('stands beside the others', async () => {
    await show();
    add().click();
    await enter('nightly');
    server.clusters.push(known('nightly'));
    void model.refresh();
    await pass();
    expect(names()).toEqual(['default', 'nightly']);
  });

  it.each([
    ['', 'Lower-case'],
    ['Nightly', 'Lower-case'],
    ['my_cluster', 'Lower-case'],
    ['-a', 'Lower-case'],
    ['a'.repeat(64), 'Lower-case'],
    ['default', 'Cluster default is there already']
  ])('is not called %j', async (name, said) => {
    await show();
    add().click();
    await enter(name);
    expect(started).toEqual([]);
    expect(field().getAttribute('aria-invalid')).toBe('true');
    expect(form()!.textContent).toContain(said);
    expect(document.activeElement).toBe(field());
  });

  it('has no profile where the site declares none', async () => {
    server.profiles = [];
    await show();
    add().click();
    await enter('nightly');
    expect(started).toMatchObject([{ name: 'nightly', options: { profile: '' } }]);
  });

  it('says why it could not be made, and keeps what was entered', async () => {
    const fault = { message: 'quota exceeded', reason: 'X', hint: 'Ask for less' };
    await show();
    outcome = Promise.reject(new ApiError(409, fault));
    outcome.catch(() => undefined); // it is heard later
    add().click();
    await enter('nightly');
    expect(form()!.querySelector('[role=alert]')!.textContent).toBe('Quota exceeded. Ask for less');
    expect(field().value).toBe('nightly');
    expect(submit().disabled).toBe(false);
  });

  it('is asked for once', async () => {
    outcome = new Promise(() => undefined);
    await show();
    add().click();
    await enter('nightly');
    submit().click();
    await pass();
    expect(started).toHaveLength(1);
  });

  it('is not made after all, by Escape or the button', async () => {
    await show();
    add().click();
    const escape = new KeyboardEvent('keydown', { key: 'Escape', bubbles: true });
    document.activeElement!.dispatchEvent(escape);
    expect(form()).toBeNull();
    add().click();
    form()!.querySelector<HTMLButtonElement>('[aria-label=Close]')!.click();
    expect(form()).toBeNull();
  });

  it('is the default one where there is none', async () => {
    server.clusters = [known('default', { phase: 'none' })];
    await show();
    $<HTMLButtonElement>('.jp-mod-primary')!.click(); // the call to action
    expect(field().value).toBe('default');
    submit().click();
    await pass();
    expect(started).toMatchObject([{ name: 'default', options: { profile: 'gpu' } }]);
  });
});

describe('while the server is away', () => {
  it('clusters are unknown, and what they were is said with the time', async () => {
    await show();
    server.error = new Away('gone');
    void model.refresh();
    await pass();
    const said = $('.jp-RayOffload-clusterItem')!.textContent;
    expect(said).toContain('Unknown');
    expect(said).toContain(`Running at ${new Date().toTimeString().slice(0, 5)}`);
    expect(said).not.toContain('Up for');
  });
});

describe('the menu of a cluster', () => {
  it('opens by a button where there is no room for the others, again and again', async () => {
    const remove = { do: 'delete', icon: 'delete', label: 'Delete', text: false };
    server.clusters = [cluster('default', {}, { ...VIEW, actions: [remove] })];
    await show();
    const opened: Array<string | undefined> = [];
    widget.node.addEventListener('contextmenu', ({ target }) =>
      opened.push((target as Element).closest<HTMLElement>('[data-name]')?.dataset.name)
    );
    for (let times = 0; times < 2; times++) {
      $<HTMLButtonElement>('[data-do=menu]')!.click();
      await pass();
    }
    expect(opened).toEqual(['default', 'default']);
  });

  it('is not there where nothing can be done', async () => {
    await show();
    expect($('[data-do=menu]')).toBeNull();
  });
});
