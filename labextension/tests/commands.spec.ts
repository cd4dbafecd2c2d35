import type { JupyterFrontEnd } from '@jupyterlab/application';
import { CommandRegistry } from '@lumino/commands';
import { Signal } from '@lumino/signaling';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { ApiError, Away } from '../src/api';
import { addCommands } from '../src/commands';
import { CommandIDs } from '../src/ids';
import { Model } from '../src/model';
import { cluster, ended, FakeServer, job, trans } from './fakes';

const ACTIONS = { actions: [{ do: 'suspend' }, { do: 'delete' }] };

let server: FakeServer;
let model: Model;
let commands: CommandRegistry;
let contextMenu: { menu: { aboutToClose: Signal<object, void> } };

beforeEach(async () => {
  vi.useFakeTimers();
  server = new FakeServer();
  server.clusters = [cluster('default', {}, ACTIONS), cluster('big', {}, ACTIONS)];
  server.jobs = [
    job('a', 1, { cluster: 'big' }),
    job('b', 2, { cluster: 'big', name: '<b>Train</b>' }),
    job('c', 3, { cluster: 'big', ...ended }),
    job('d', 4)
  ];
  model = new Model(server.api, null, { interval: 3_600_000, max: 3_600_000, backoff: 1 });
  commands = new CommandRegistry();
  contextMenu = { menu: { aboutToClose: new Signal<object, void>({}) } };
  const app = { commands, contextMenu } as unknown as JupyterFrontEnd;
  addCommands({ app, model, trans, notebooks: null, documents: null, line: () => '' });
  await pass(1);
  server.take();
});

afterEach(async () => {
  if (dialog('')) await answer('reject'); // the next one waits for it
  model.dispose();
  document.body.replaceChildren();
  vi.useRealTimers();
});

async function pass(milliseconds: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

async function run(id: string, args = {}): Promise<void> {
  void commands.execute(id, args);
  await pass(50);
}

const dialog = (part: string) => document.querySelector<HTMLElement>(`.jp-Dialog ${part}`);

async function answer(button: 'accept' | 'reject'): Promise<void> {
  dialog(`button.jp-mod-${button}`)!.click();
  await pass(50);
}

describe('what ends a cluster', () => {
  it.each([
    ['suspend', CommandIDs.suspend, 'Suspend cluster big?'],
    ['delete', CommandIDs.deleteCluster, 'Delete cluster big?']
  ])('says what is lost before it does it: %s', async (verb, id, title) => {
    await run(id, { name: 'big' });
    expect(dialog('.jp-Dialog-header')?.textContent).toBe(title);
    const said = dialog('.jp-Dialog-body')!.textContent;
    expect(said).toContain('2 running jobs will be lost: <b>Train</b>, name of a');
    expect(said.includes('Suspend it instead')).toBe(verb === 'delete');
    await answer('accept');
    expect(server.take()).toContain(`${verb} big`);
    expect(dialog('')).toBeNull();
  });

  it('does nothing when the person does not want it', async () => {
    await run(CommandIDs.deleteCluster, { name: 'big' });
    await answer('reject');
    expect(server.take()).not.toContain('delete big');
  });

  it('is the cluster that cells go to, when none is named', async () => {
    await run(CommandIDs.deleteCluster);
    expect(dialog('.jp-Dialog-header')?.textContent).toBe('Delete cluster default?');
    expect(dialog('.jp-Dialog-body')?.textContent).toContain(
      '1 running job will be lost: name of d'
    );
  });

  it('is not said to be better suspended where that cannot be', async () => {
    server.clusters = [cluster('big', {}, { actions: [{ do: 'delete' }] })];
    void model.refresh();
    await pass(50);
    await run(CommandIDs.deleteCluster, { name: 'big' });
    expect(dialog('.jp-Dialog-body')?.textContent).not.toContain('Suspend');
  });

  it('can only be asked for where the server lets it', () => {
    expect(commands.isEnabled(CommandIDs.deleteCluster, { name: 'big' })).toBe(true);
    expect(commands.isEnabled(CommandIDs.resume, { name: 'big' })).toBe(false);
    expect(commands.isEnabled(CommandIDs.deleteCluster, { name: 'no such' })).toBe(false);
  });
});

describe('jobs', () => {
  it('are cancelled, and the list tells it at once', async () => {
    await run(CommandIDs.cancel, { id: 'a' });
    expect(server.take()).toEqual(['stop a', 'clusters', 'jobs 50']);
  });

  it('are the newest one that it can be done with, when none is named', async () => {
    await run(CommandIDs.cancel);
    expect(server.take()[0]).toBe('stop d');
    await run(CommandIDs.deleteJob);
    expect(dialog('.jp-Dialog-header')?.textContent).toBe('Delete job name of c?');
    await answer('accept');
    expect(server.take()).toContain('forget c');
  });

  it('say why something could not be done, and what to do', async () => {
    const fault = { message: 'it has ended', reason: 'JobError', hint: 'Rerun it' };
    server.error = new ApiError(409, fault);
    vi.spyOn(console, 'warn').mockReturnValue(); // the dialog writes there too
    await run(CommandIDs.cancel, { id: 'a' });
    expect(dialog('.jp-Dialog-header')?.textContent).toContain('Job name of a');
    expect(dialog('.jp-Dialog-body')?.textContent).toBe('It has ended. Rerun it');
  });

  it.each([
    ['cancelled', CommandIDs.cancel, 'a', 'stop a'],
    ['deleted', CommandIDs.deleteJob, 'c', 'forget c'],
    ['rerun', CommandIDs.rerun, 'c', 'rerun c']
  ])('are %s though the server goes right afterwards', async (_, id, job, asked) => {
    const opened: unknown[] = [];
    commands.addCommand(CommandIDs.openJob, { execute: args => void opened.push(args.id) });
    const result = commands.execute(id, { id: job });
    await pass(50);
    server.afterwards = new Away('gone');
    if (dialog('')) await answer('accept');
    await pass(50);
    expect(server.take()).toContain(asked);
    expect(dialog('')).toBeNull();
    expect(await result).not.toBe(false);
    expect(opened).toEqual(asked.startsWith('rerun') ? ['c-again'] : []);
  });

  it('are looked for in vain while the server is away, without a word on the console', async () => {
    server.error = new Away('gone');
    await expect(
      Promise.all([commands.execute(CommandIDs.refresh), pass(50)])
    ).resolves.toBeDefined();
  });
});

describe('a context menu', () => {
  /** Point at an element of this HTML, as a right click does. */
  function point(html: string): void {
    document.body.innerHTML = html;
    document.body
      .querySelector('span')!
      .dispatchEvent(new MouseEvent('contextmenu', { bubbles: true }));
  }

  const row = (id: string) =>
    `<ul class="jp-RayOffload-jobs"><li data-id="${id}"><span></span></li></ul>`;

  it('is for the cluster that it was opened on', async () => {
    point('<li class="jp-RayOffload-clusterItem" data-name="big"><span></span></li>');
    await run(CommandIDs.deleteCluster);
    expect(dialog('.jp-Dialog-header')?.textContent).toBe('Delete cluster big?');
  });

  it('is for the job that it was opened on, and for nothing else', async () => {
    point(row('a'));
    expect(commands.isEnabled(CommandIDs.rerun)).toBe(false); // it runs
    contextMenu.menu.aboutToClose.emit(); // what was chosen comes right after it
    await run(CommandIDs.cancel);
    expect(server.take()[0]).toBe('stop a');
  });

  it('that was closed says nothing any more', async () => {
    point(row('a'));
    contextMenu.menu.aboutToClose.emit();
    await pass(1);
    expect(commands.isEnabled(CommandIDs.rerun)).toBe(true);
    await run(CommandIDs.cancel);
    expect(server.take()[0]).toBe('stop d');
  });
});
