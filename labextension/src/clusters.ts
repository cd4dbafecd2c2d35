import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';

import panel from '#panel/cluster.js';
import { button, clock, el, sentence } from '#panel/dom.js';

import { ApiError } from './api';
import { CommandIDs } from './ids';
import type { Model } from './model';
import { NewCluster } from './newcluster';
import { Section } from './section';
import type { Cluster, Fault } from './tokens';

/** What the panel under a cell has from its kernel, one cluster here has from the server. */
class Card {
  constructor(
    name: string,
    private readonly act: (asked: { do: string; options: Record<string, unknown> }) => void,
    signal: AbortSignal
  ) {
    this.node = el('li', { class: 'jp-RayOffload-clusterItem', 'data-name': name });
    panel.render({
      el: this.node,
      signal,
      model: {
        get: () => this.view,
        on: (_, listener) => (this.listener = listener),
        send: asked => this.act(asked)
      }
    });
  }

  readonly node: HTMLElement;

  show(view: Record<string, unknown>): void {
    this.view = view;
    this.listener();
  }

  private listener: () => void = () => undefined;
  private view: Record<string, unknown> = { ...EMPTY };
}

const EMPTY = {
  name: '',
  group: '',
  state: 'none',
  word: '',
  status: '',
  actions: [],
  meters: [],
  workers: null,
  lines: [],
  form: null,
  history: [],
  words: {}
};

/** The clusters, each as its panel shows it. */
export class Clusters extends Section {
  constructor(
    private readonly model: Model,
    private readonly commands: CommandRegistry,
    private readonly trans: TranslationBundle
  ) {
    const list = el('ul', { class: 'jp-RayOffload-list', 'aria-label': trans.__('Clusters') });
    const refresh = button(
      'refresh',
      trans.__('Refresh'),
      () => void commands.execute(CommandIDs.refresh)
    );
    const add = button('add', trans.__('New cluster'), () => this.add());
    super(trans.__('Clusters'), [add, refresh], el('div', {}, list));
    this.list = list;
    this.adding = add;
    model.changed.connect(this.draw, this);
    this.draw();
  }

  override dispose(): void {
    this.end.abort();
    this.model.changed.disconnect(this.draw, this);
    super.dispose();
  }

  private draw(): void {
    const { clusters, health } = this.model;
    // The embedded cluster is the only one, and where clusters are by address it is not ours to make one.
    this.adding.hidden = health !== 'well' || !clusters.some(({ kind }) => kind === 'kubernetes');
    if (health === 'asking') return;
    const known = new Set(clusters.map(cluster => cluster.name));
    for (const [name, card] of this.cards) {
      if (known.has(name)) continue;
      card.node.remove();
      this.cards.delete(name);
    }
    for (const cluster of clusters) {
      if (cluster.phase === 'none') {
        this.drawNone(cluster);
        continue;
      }
      this.nothing?.remove();
      this.nothing = null;
      this.drawCard(cluster);
    }
    if (this.nothing) this.nothing.hidden = this.form !== null;
  }

  /** Nothing runs: the one call to action. */
  private drawNone(cluster: Cluster): void {
    this.cards.get(cluster.name)?.node.remove();
    this.cards.delete(cluster.name);
    const fault = this.faults.get(cluster.name);
    const busy = this.busy.has(cluster.name);
    const key = JSON.stringify([fault, busy, cluster.view.actions.length]);
    if (this.nothing?.dataset.key === key) return;
    const { trans } = this;
    const start = button('start', trans.__('Start cluster'), () => this.start(cluster), {
      text: true
    });
    start.classList.add('jp-mod-primary');
    start.disabled = busy;
    const note = el(
      'li',
      { class: 'jp-RayOffload-note', 'data-key': key },
      el('p', {}, trans.__('No cluster yet')),
      el(
        'p',
        { class: 'jp-RayOffload-quiet' },
        this.sentence(
          trans.__(
            'The first `%1` makes one. Or start it now, so that it is there when you need it.',
            '%%ray_job'
          )
        )
      ),
      fault ? el('p', { role: 'alert' }, fault.message, ' ', fault.hint) : null,
      el('div', { class: 'jp-RayOffload-buttons' }, start)
    );
    this.nothing?.remove();
    this.nothing = note;
    this.list.append(note);
  }

  private drawCard(cluster: Cluster): void {
    let card = this.cards.get(cluster.name);
    if (!card) {
      card = new Card(cluster.name, asked => void this.act(cluster.name, asked), this.end.signal);
      this.cards.set(cluster.name, card);
      this.list.append(card.node);
    }
    const { health } = this.model;
    const asked = this.busy.get(cluster.name) ?? '';
    const rests = this.busy.has(cluster.name);
    const away = health === 'away';
    // The dialogs of JupyterLab ask instead of the panel.
    const actions = cluster.view.actions
      .filter(action => !away || action.do === 'dashboard')
      .map(action => ({ ...action, confirm: undefined, rests: action.rests || rests }));
    const more = { do: 'menu', icon: 'more', label: this.trans.__('More'), text: false };
    if (actions.some(action => action.do !== 'dashboard'))
      actions.push({ ...more, confirm: undefined, rests: false });
    const fault = this.faults.get(cluster.name) ?? cluster.fault;
    const unknown = away && {
      state: 'unknown',
      word: this.trans.__('Unknown'),
      workers: null,
      meters: [],
      lines: [this.trans.__('%1 at %2', cluster.view.word, clock(this.model.since).slice(0, 5))]
    };
    card.show({
      ...cluster.view,
      ...(unknown || {}),
      busy: asked,
      actions,
      fault:
        fault && fault.message !== cluster.reason
          ? { main: fault.message, second: fault.hint }
          : null,
      workers: away || !cluster.view.workers ? null : { ...cluster.view.workers, rests },
      now: this.model.now()
    });
  }

  /** The cluster that cells go to: at once where there is nothing to choose. */
  private start(cluster: Cluster): void {
    if (this.model.profiles.length > 0) this.add();
    else void this.act(cluster.name, { do: 'start', options: {} });
  }

  /** Show the form of a further cluster. */
  private add(): void {
    if (!this.form) {
      const { profiles } = this.model;
      const taken = () =>
        this.model.clusters.filter(({ phase }) => phase !== 'none').map(({ name }) => name);
      const name = taken().includes('default') ? '' : 'default';
      const { words } = this.model.clusters[0].view;
      this.form = new NewCluster(
        { profiles, words, name, taken },
        (name, options) =>
          this.commands.execute(CommandIDs.start, { name, options: options as never, told: true }),
        () => this.closeForm(),
        this.trans
      );
      this.list.prepend(this.form.node);
      this.draw();
    }
    this.form.focus();
  }

  private closeForm(): void {
    const held = this.form?.node.contains(document.activeElement);
    this.form?.node.remove();
    this.form = null;
    this.draw();
    if (held) (this.list.querySelector<HTMLElement>('button') ?? this.adding).focus();
  }

  private async act(
    name: string,
    { do: verb, options }: { do: string; options: Record<string, unknown> }
  ): Promise<void> {
    if (verb === 'menu') return this.menu(name);
    const command = CommandIDs.clusterVerbs[verb];
    if (!command) return;
    this.busy.set(name, this.asked(verb));
    this.faults.delete(name);
    this.draw();
    try {
      await this.commands.execute(command, { name, options: options as never, told: true });
    } catch (error) {
      const fault: Fault =
        error instanceof ApiError
          ? error.fault
          : { message: String((error as Error).message ?? error), reason: '', hint: '' };
      this.faults.set(name, fault);
    } finally {
      this.busy.delete(name);
      this.draw();
    }
  }

  /** Open the menu of a cluster: where there is no room for the buttons. */
  private menu(name: string): void {
    const control = this.cards.get(name)?.node.querySelector<HTMLButtonElement>('[data-do=menu]');
    if (!control) return;
    const { left, bottom } = control.getBoundingClientRect();
    const place = { bubbles: true, cancelable: true, clientX: left, clientY: bottom };
    setTimeout(() => {
      control.disabled = false; // it rests after a click, for the others wait for an answer
      control.title = this.trans.__('More');
      control.dispatchEvent(new MouseEvent('contextmenu', place));
    });
  }

  /** What is under way, and since when; suspending and deleting ask first, and tell of themselves. */
  private asked(verb: string): string {
    const { trans } = this;
    const since = `{since:${Math.floor(this.model.now())}}`;
    if (verb === 'start') return trans.__('Asked to start %1 ago', since);
    if (verb === 'resume') return trans.__('Asked to resume %1 ago', since);
    if (verb === 'scale') return trans.__('Asked to scale %1 ago', since);
    return '';
  }

  private sentence(text: string): DocumentFragment {
    return sentence(text, this.model.now, []);
  }

  private readonly list: HTMLElement;
  private readonly cards = new Map<string, Card>();
  /** What was asked for and has not been answered, and what could not be done. */
  private readonly busy = new Map<string, string>();
  private readonly faults = new Map<string, Fault>();
  private readonly adding: HTMLElement;
  private form: NewCluster | null = null;
  private nothing: HTMLElement | null = null;
  private readonly end = new AbortController();
}
