import { CommandRegistry } from '@lumino/commands';
import { Widget } from '@lumino/widgets';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { Away } from '../src/api';
import { CommandIDs } from '../src/ids';
import type { Filter } from '../src/jobs';
import { age, Jobs, passes } from '../src/jobs';
import { Model } from '../src/model';
import type { JobSummary } from '../src/tokens';
import { ended, FakeServer, job, jobs, trans } from './fakes';

describe('passes', () => {
  const made = job('j-1', 1, {
    name: 'Train',
    notebook: 'work/Model.ipynb',
    word: 'Waiting',
    state: 'pending',
    fact: 'for a GPU'
  });
  const check = (filter: Partial<Filter>, of: JobSummary = made, found: string[] = []) =>
    passes(of, { text: '', state: '', notebook: '', ...filter }, new Set(found));

  it('lets all through without a filter', () => {
    expect(check({})).toBe(true);
  });

  it('goes by the state, or by whether it has ended', () => {
    const done = job('j-2', 2, ended);
    expect(check({ state: 'pending' })).toBe(true);
    expect(check({ state: 'running' })).toBe(false);
    expect([check({ state: 'live' }), check({ state: 'live' }, done)]).toEqual([true, false]);
    expect([check({ state: 'ended' }), check({ state: 'ended' }, done)]).toEqual([false, true]);
  });

  it('goes by the notebook', () => {
    expect(check({ notebook: 'work/Model.ipynb' })).toBe(true);
    expect(check({ notebook: 'Model.ipynb' })).toBe(false);
  });

  it.each(['Train', 'trAIN', 'j-1', 'model.ip', 'wait', 'a gpu'])('finds the text %j', text => {
    expect(check({ text })).toBe(true);
  });

  it('finds a text that only the server can find', () => {
    expect(check({ text: 'torch' })).toBe(false);
    expect(check({ text: 'torch' }, made, ['j-1'])).toBe(true);
    expect(check({ text: 'torch' }, made, ['j-2'])).toBe(false);
  });

  it('wants everything that is asked for', () => {
    expect(check({ text: 'train', state: 'live', notebook: 'work/Model.ipynb' })).toBe(true);
    expect(check({ text: 'train', state: 'failed' })).toBe(false);
    expect(check({ text: 'torch', notebook: 'other' }, made, ['j-1'])).toBe(false);
  });
});

describe('age', () => {
  const seconds = (...at: [number, number, number, number?, number?]) =>
    new Date(...at).getTime() / 1000;
  const now = seconds(2026, 5, 15, 12, 30);
  const said = (...at: Parameters<typeof seconds>) => age(seconds(...at), now, trans);

  it('is the time, today', () => {
    expect(said(2026, 5, 15, 9, 5)).toBe('09:05');
    expect(said(2026, 5, 15, 0, 0)).toBe('00:00');
  });

  it('is a word for the day before', () => {
    expect(said(2026, 5, 14, 23, 59)).toBe('yesterday');
    expect(said(2026, 5, 14, 0, 0)).toBe('yesterday');
  });

  it('is the day before that, with its year only when it is another one', () => {
    expect(said(2026, 5, 13, 23, 59)).toMatch(/13/);
    expect(said(2026, 5, 13, 23, 59)).not.toMatch(/:|2026/);
    expect(said(2025, 5, 15, 12, 30)).toMatch(/2025/);
  });
});

describe('the list', () => {
  let server: FakeServer;
  let model: Model;
  let widget: Jobs;
  let ran: Array<[string, unknown]>;

  beforeEach(() => {
    vi.useFakeTimers({ now: new Date(2027, 0, 15, 12) });
    server = new FakeServer();
    ran = [];
  });

  afterEach(() => {
    widget.dispose();
    model.dispose();
    document.body.replaceChildren();
    vi.useRealTimers();
  });

  /** Show what the server has. */
  async function show(): Promise<void> {
    model = new Model(server.api, null, { interval: 3_600_000, max: 3_600_000, backoff: 1 });
    const commands = new CommandRegistry();
    const ids = Object.values(CommandIDs).filter(id => typeof id === 'string');
    for (const id of ids) {
      if (commands.hasCommand(id)) continue;
      commands.addCommand(id, { execute: args => void ran.push([id, args]) });
    }
    widget = new Jobs(model, commands, trans);
    Widget.attach(widget, document.body);
    await pass(1);
  }

  async function pass(milliseconds: number): Promise<void> {
    await vi.advanceTimersByTimeAsync(milliseconds);
  }

  async function refresh(): Promise<void> {
    void model.refresh();
    await pass(1);
  }

  const $ = <E extends HTMLElement>(selector: string, inside: Element = widget.node) =>
    inside.querySelector<E>(selector)!;
  const rows = () => [...widget.node.querySelectorAll<HTMLElement>('li')];
  const ids = () => rows().map(row => row.dataset.id);
  const row = (id: string) => $(`li[data-id="${id}"]`);
  const text = (id: string, part: string) => $(`.jp-RayOffload-${part}`, row(id)).textContent;
  const time = (id: string) => $('time', row(id)).textContent;
  const input = () => $<HTMLInputElement>('input');
  const note = () => $('.jp-RayOffload-note');
  const tools = (id: string) => [...row(id).querySelectorAll('button')];
  const labels = (id: string) => tools(id).map(tool => tool.getAttribute('aria-label'));

  function type(value: string): void {
    input().value = value;
    input().dispatchEvent(new InputEvent('input', { bubbles: true }));
  }

  function press(key: string, more: KeyboardEventInit = {}): KeyboardEvent {
    const event = new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true, ...more });
    document.activeElement!.dispatchEvent(event);
    return event;
  }

  describe('rows', () => {
    it('stand for the jobs, newest first', async () => {
      const fact = 'epoch `3` of 10';
      server.jobs = [job('a', 1, ended), job('c', 3, { fact }), job('b', 2)];
      await show();
      expect(ids()).toEqual(['c', 'b', 'a']);
      expect(text('c', 'name')).toBe('name of c');
      expect(text('c', 'meta')).toBe('Running · epoch 3 of 10');
      expect(row('c').getAttribute('aria-label')).toBe('name of c, Running · epoch 3 of 10');
      expect(text('b', 'meta')).toBe('Running');
      expect($('.jp-RayOffload-state', row('a')).classList).toContain('jp-mod-succeeded');
      expect($('.jp-RayOffload-name', row('a')).title).toBe('name of a (a)');
    });

    it('show names as text', async () => {
      server.jobs = [job('a', 1, { name: '<img src=x>', fact: '<b>x</b>' })];
      await show();
      expect(text('a', 'name')).toBe('<img src=x>');
      expect(text('a', 'meta')).toBe('Running · <b>x</b>');
      expect(row('a').querySelector('img, b')).toBeNull();
    });

    it('stay the same nodes when something changes', async () => {
      server.jobs = jobs(1, 3);
      await show();
      const [third, second, first] = rows();
      const kept = second.firstElementChild;
      server.jobs = [job('j-1', 1, ended), job('j-2', 2), job('j-3', 3), job('j-4', 4)];
      await refresh();
      expect(rows().slice(1)).toEqual([third, second, first]);
      expect(ids()).toEqual(['j-4', 'j-3', 'j-2', 'j-1']);
      expect(text('j-1', 'meta')).toBe('Succeeded');
      // what has not changed is not drawn again
      expect(second.firstElementChild).toBe(kept);
    });

    it('go with their job', async () => {
      server.jobs = jobs(1, 3);
      await show();
      server.jobs.splice(1, 1);
      await refresh();
      expect(ids()).toEqual(['j-3', 'j-1']);
    });

    it('tell how long it runs, or has run', async () => {
      const now = Date.now() / 1000;
      server.jobs = [
        job('runs', now - 5),
        job('waits', now - 6, { begun: null }),
        job('done', now - 100, { ...ended, finished: now - 30 }),
        job('lost', now - 200, { ...ended, state: 'lost', finished: null })
      ];
      await show();
      expect(['runs', 'waits', 'done', 'lost'].map(time)).toEqual(['5 s', '', '1 min 10 s', '']);
      const node = $('time', row('runs'));
      await pass(3000);
      expect($('time', row('runs'))).toBe(node);
      expect(['runs', 'waits', 'done', 'lost'].map(time)).toEqual(['8 s', '', '1 min 10 s', '']);
    });

    it('do not count while nobody sees them', async () => {
      server.jobs = [job('runs', Date.now() / 1000 - 5)];
      await show();
      widget.hide();
      await pass(3000);
      expect(time('runs')).toBe('5 s');
      widget.show();
      await pass(1000);
      expect(time('runs')).toBe('9 s');
    });

    it('say of a job that has not ended that it is unknown, when the server is away', async () => {
      server.jobs = [job('a', 1, ended), job('b', 2)];
      await show();
      server.error = new Away('gone');
      await refresh();
      const then = new Date().toTimeString().slice(0, 5);
      expect(text('b', 'meta')).toBe(`Unknown · running at ${then}`);
      expect(time('b')).toBe(''); // nobody knows whether it still runs
      expect($('.jp-RayOffload-state', row('b')).classList).toContain('jp-mod-unknown');
      expect(text('a', 'meta')).toBe('Succeeded');
      server.error = null;
      await refresh();
      expect(text('b', 'meta')).toBe('Running');
    });

    it('are of yesterday when a day has gone', async () => {
      server.jobs = [job('a', Date.now() / 1000 - 1, ended)];
      await show();
      expect(text('a', 'age')).toMatch(/:/);
      vi.setSystemTime(Date.now() + 86_400_000);
      await refresh();
      expect(text('a', 'age')).toBe('yesterday');
    });

    it('open the job when they are clicked', async () => {
      server.jobs = jobs(1, 2);
      await show();
      $('.jp-RayOffload-name', row('j-1')).click();
      expect(ran).toEqual([[CommandIDs.openJob, { id: 'j-1' }]]);
    });

    it('are no longer drawn after the end', async () => {
      server.jobs = jobs(1, 1);
      await show();
      widget.dispose();
      server.jobs = jobs(1, 2);
      await refresh();
      expect(model.jobs).toHaveLength(2);
      expect(rows()).toHaveLength(1);
    });
  });

  describe('buttons of a row', () => {
    beforeEach(async () => {
      server.jobs = [job('a', 1, ended), job('b', 2)];
      await show();
    });

    it('come when it is pointed at, once', () => {
      expect(tools('b')).toEqual([]);
      row('b').dispatchEvent(new Event('pointerenter'));
      row('b').dispatchEvent(new Event('pointerenter'));
      expect(labels('b')).toEqual(['Open', 'Attach to the notebook', 'Cancel']);
      expect(tools('a')).toEqual([]);
      row('a').dispatchEvent(new Event('pointerenter'));
      expect(labels('a')).toEqual(['Open', 'Attach to the notebook', 'Rerun', 'Delete']);
    });

    it('do what they say, and nothing else', () => {
      for (const id of ['a', 'b']) row(id).dispatchEvent(new Event('pointerenter'));
      for (const tool of [...tools('a'), ...tools('b')]) tool.click();
      expect(ran).toEqual([
        [CommandIDs.openJob, { id: 'a' }],
        [CommandIDs.attach, { id: 'a' }],
        [CommandIDs.rerun, { id: 'a' }],
        [CommandIDs.deleteJob, { id: 'a' }],
        [CommandIDs.openJob, { id: 'b' }],
        [CommandIDs.attach, { id: 'b' }],
        [CommandIDs.cancel, { id: 'b' }]
      ]);
    });

    it('come with the focus, and can be reached then', () => {
      row('a').focus();
      expect(tools('a').map(tool => tool.tabIndex)).toEqual([0, 0, 0, 0]);
      row('b').focus();
      expect(tools('b').map(tool => tool.tabIndex)).toEqual([0, 0, 0]);
      expect(tools('a').map(tool => tool.tabIndex)).toEqual([-1, -1, -1, -1]);
    });

    it('are those of a job that has ended as soon as it has', async () => {
      row('b').focus();
      server.jobs[1] = job('b', 2, ended);
      await refresh();
      expect(labels('b')).toEqual(['Open', 'Attach to the notebook', 'Rerun', 'Delete']);
      expect(document.activeElement).toBe(row('b'));
    });

    it('keep the focus when the row is drawn again', async () => {
      row('b').focus();
      tools('b')[1].focus();
      server.jobs[1] = job('b', 2, { fact: 'epoch 3' });
      await refresh();
      expect(document.activeElement).toBe(tools('b')[1]);
      tools('b')[2].focus(); // to cancel, which there is not any more afterwards
      server.jobs[1] = job('b', 2, ended);
      await refresh();
      expect(document.activeElement).toBe(row('b'));
    });
  });

  describe('keys', () => {
    beforeEach(async () => {
      server.jobs = jobs(1, 4);
      await show();
      rows()[0].focus();
    });

    const focused = () => (document.activeElement as HTMLElement).dataset.id;

    it('go from row to row, and not beyond', () => {
      const went = ['ArrowDown', 'ArrowDown', 'ArrowUp', 'End', 'ArrowDown', 'Home', 'ArrowUp'].map(
        key => (press(key), focused())
      );
      expect(went).toEqual(['j-3', 'j-2', 'j-3', 'j-1', 'j-1', 'j-4', 'j-4']);
      press('PageDown');
      expect(focused()).toBe('j-3');
      press('PageUp');
      expect(focused()).toBe('j-4');
    });

    it('leave one row in the order of the focus', () => {
      press('ArrowDown');
      expect(rows().map(({ tabIndex }) => tabIndex)).toEqual([-1, 0, -1, -1]);
    });

    it('leave it there when others come, and go to the first when it is gone', async () => {
      press('End');
      (document.activeElement as HTMLElement).blur();
      server.jobs.push(job('j-5', 5));
      await refresh();
      expect(rows().map(({ tabIndex }) => tabIndex)).toEqual([-1, -1, -1, -1, 0]);
      server.jobs.shift();
      await refresh();
      expect(rows().map(({ tabIndex }) => tabIndex)).toEqual([0, -1, -1, -1]);
    });

    it('do not lose their place when the row that has the focus goes', async () => {
      server.jobs.pop();
      await refresh();
      expect(focused()).toBe('j-3');
    });

    it('open the job with Enter', () => {
      press('ArrowDown');
      expect(press('Enter').defaultPrevented).toBe(true);
      expect(ran).toEqual([[CommandIDs.openJob, { id: 'j-3' }]]);
    });

    it('leave Enter to the button that has the focus, from which Escape leads back', () => {
      tools('j-4')[1].focus();
      expect(press('Enter').defaultPrevented).toBe(false);
      expect(ran).toEqual([]);
      press('Escape');
      expect(focused()).toBe('j-4');
    });

    it('are left alone when they are not ours', () => {
      expect(press('ArrowDown').defaultPrevented).toBe(true);
      for (const event of [
        press('x'),
        press('Escape'),
        press('ArrowDown', { ctrlKey: true }),
        press('ArrowDown', { altKey: true }),
        press('Enter', { metaKey: true })
      ]) {
        expect(event.defaultPrevented).toBe(false);
      }
      expect(focused()).toBe('j-3');
      expect(ran).toEqual([]);
    });
  });

  describe('the filter', () => {
    it('shows what has the text, while it is typed', async () => {
      server.jobs = [job('a', 1, { name: 'Train' }), job('b', 2, { name: 'Test' })];
      await show();
      type(' tr ');
      expect(ids()).toEqual(['a']);
      expect(input().value).toBe(' tr ');
      type('t');
      expect(ids()).toEqual(['b', 'a']);
    });

    it('asks the server a moment later, once', async () => {
      server.jobs = jobs(1, 300);
      await show();
      server.take();
      for (const part of ['name of j-1', 'name of j-15', '  name of j-15']) {
        type(part);
        await pass(200);
      }
      expect(server.take()).toEqual([]);
      await pass(200);
      expect(server.take()).toEqual(['jobs 200 name of j-15']);
      // j-15 stood further down than what was here
      expect(ids()).toContain('j-15');
    });

    it('shows what only the server can find', async () => {
      server.jobs = jobs(1, 2);
      await show();
      vi.spyOn(model, 'search').mockResolvedValue(new Set(['j-1']));
      type('torch');
      expect(ids()).toEqual([]);
      await pass(300);
      expect(ids()).toEqual(['j-1']);
      type('name of');
      expect(ids()).toEqual(['j-2', 'j-1']);
      type('numpy'); // what was found for another text does not count
      expect(ids()).toEqual([]);
    });

    it('does not take a late answer for another text', async () => {
      server.jobs = jobs(1, 2);
      await show();
      let answer = (_: Set<string>) => {};
      vi.spyOn(model, 'search').mockReturnValueOnce(new Promise(resolve => (answer = resolve)));
      type('torch');
      await pass(300);
      type('numpy');
      answer(new Set(['j-1']));
      await pass(1);
      expect(ids()).toEqual([]);
    });

    it('goes on when the server cannot search', async () => {
      server.jobs = jobs(1, 2);
      await show();
      server.error = new Away('gone');
      type('j-1');
      await pass(300);
      expect(ids()).toEqual(['j-1']);
    });

    it('stays when the list changes', async () => {
      server.jobs = jobs(1, 2);
      await show();
      type('j-1');
      server.jobs = jobs(1, 3);
      await refresh();
      expect(ids()).toEqual(['j-1']);
      widget.narrow({ text: '', state: '', notebook: '' });
      expect(input().value).toBe('');
      expect(ids()).toEqual(['j-3', 'j-2', 'j-1']);
    });

    it('is not there when there are no jobs', async () => {
      await show();
      expect($('.jp-RayOffload-filter').hidden).toBe(true);
      server.jobs = jobs(1, 1);
      await refresh();
      expect($('.jp-RayOffload-filter').hidden).toBe(false);
    });

    /** Open the menu, and choose what is written there. */
    async function choose(label: string): Promise<string[]> {
      $('button[aria-haspopup=menu]').click();
      const menu = document.querySelector('.lm-Menu')!;
      const items = [...menu.querySelectorAll('.lm-Menu-item[data-type=command]')];
      const said = items.map(item => item.querySelector('.lm-Menu-itemLabel')!.textContent!);
      const press = (keyCode: number) =>
        menu.dispatchEvent(new KeyboardEvent('keydown', { keyCode, bubbles: true }));
      for (let i = said.indexOf(label); i >= 0; i--) press(40); // down
      press(13); // Enter
      await pass(1);
      return said;
    }

    it('goes by states and notebooks, which a menu has', async () => {
      server.jobs = [
        job('a', 1, { notebook: 'b.ipynb', ...ended }),
        job('b', 2, { notebook: 'a.ipynb' }),
        job('c', 3, { notebook: 'b.ipynb' }),
        job('d', 4)
      ];
      await show();
      const more = $('button[aria-haspopup=menu]');
      const said = await choose('Not ended');
      const named = ['All notebooks', 'a.ipynb', 'b.ipynb'];
      expect(said.slice(0, 3)).toEqual(['All states', 'Not ended', 'Running']);
      expect(said.slice(-3)).toEqual(named);
      expect(ids()).toEqual(['d', 'c', 'b']);
      expect(more.getAttribute('aria-pressed')).toBe('true');
      await choose('b.ipynb');
      expect(ids()).toEqual(['c']);
      await choose('All states');
      expect(ids()).toEqual(['c', 'a']);
      await choose('All notebooks');
      expect(ids()).toEqual(['d', 'c', 'b', 'a']);
      expect(more.getAttribute('aria-pressed')).toBe('false');
    });

    it('has marks in the menu at what is chosen', async () => {
      server.jobs = [job('a', 1, { notebook: 'a.ipynb' })];
      await show();
      widget.narrow({ text: '', state: 'live', notebook: '' });
      $('button[aria-haspopup=menu]').click();
      const marked = [...document.querySelectorAll('.lm-Menu-item.lm-mod-toggled')];
      expect(marked.map(item => item.textContent)).toEqual(['Not ended', 'All notebooks']);
    });

    it('stays where it can be cleared when there are no jobs any more', async () => {
      server.jobs = jobs(1, 1);
      await show();
      type('j-1');
      server.jobs = [];
      await refresh();
      expect($('.jp-RayOffload-filter').hidden).toBe(false);
    });
  });

  describe('the note', () => {
    it('says nothing before the first answer, and while there are rows', async () => {
      const open = server.hold();
      server.jobs = jobs(1, 1);
      await show();
      expect(note().hidden).toBe(true);
      open();
      await pass(1);
      expect(note().hidden).toBe(true);
    });

    it('says how to run the first job', async () => {
      await show();
      expect(note().hidden).toBe(false);
      expect(note().getAttribute('role')).toBe('status');
      expect(note().textContent).toContain('No jobs yet');
      expect($('code', note()).textContent).toBe('%%ray_job');
      server.jobs = jobs(1, 1);
      await refresh();
      expect(note().hidden).toBe(true);
    });

    it('says when nothing is there to know of jobs', async () => {
      server.reason = 'the cluster is suspended';
      await show();
      expect(note().textContent).toContain('Nothing runs that knows of jobs');
    });

    it('says that nothing matches, and clears the filter', async () => {
      server.jobs = jobs(1, 2);
      await show();
      type('torch');
      expect(note().hidden).toBe(false);
      expect(note().textContent).toContain('No job matches “torch”');
      $('button', note()).click();
      expect(ids()).toEqual(['j-2', 'j-1']);
      expect(input().value).toBe('');
      expect(document.activeElement).toBe(input());
      expect(note().hidden).toBe(true);
    });

    it('says that no job is in a state', async () => {
      server.jobs = jobs(1, 2);
      await show();
      widget.narrow({ text: '', state: 'failed', notebook: '' });
      expect(note().textContent).toContain('No job is in this state');
    });
  });

  describe('older jobs', () => {
    /** As a browser would have laid it out. */
    function layout(clientHeight: number, scrollHeight: number): HTMLElement {
      const scroll = $('.jp-RayOffload-scroll');
      Object.defineProperties(scroll, {
        clientHeight: { value: clientHeight },
        scrollHeight: { value: scrollHeight }
      });
      return scroll;
    }

    it('are read when the end comes near, once at a time', async () => {
      server.jobs = jobs(1, 250);
      await show();
      server.take();
      const scroll = layout(500, 9800);
      const move = (to: number) => {
        scroll.scrollTop = to;
        scroll.dispatchEvent(new Event('scroll'));
      };
      move(100);
      expect(server.take()).toEqual([]);
      move(9000);
      move(9100);
      await pass(1);
      expect(server.take()).toEqual(['jobs 200 before 51']);
      expect(rows()).toHaveLength(250);
    });

    it('are not read while nobody sees the list', async () => {
      server.jobs = jobs(1, 250);
      await show();
      server.take();
      const scroll = layout(500, 600);
      widget.hide();
      scroll.dispatchEvent(new Event('scroll'));
      await pass(1);
      expect(server.take()).toEqual([]);
    });
  });

  it('is looked at anew with a button', async () => {
    await show();
    $('.jp-RayOffload-actions button').click();
    expect(ran).toEqual([[CommandIDs.refresh, {}]]);
  });
});
