import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import { Panel, Widget } from '@lumino/widgets';

import { button, clock, copyText, el, icon, sentence } from '#panel/dom.js';

import { Clusters } from './clusters';
import { Jobs } from './jobs';
import type { Model } from './model';

/** The Ray sidebar: clusters and jobs, or what is missing. */
export class Sidebar extends Panel {
  constructor(
    private readonly model: Model,
    commands: CommandRegistry,
    private readonly trans: TranslationBundle
  ) {
    super();
    this.addClass('jp-RayOffload-sidebar');
    this.banner = new Widget({ node: el('div', { class: 'jp-RayOffload jp-RayOffload-banner' }) });
    this.banner.hide();
    this.addWidget(this.banner);
    this.clusters = new Clusters(model, commands, trans);
    this.jobs = new Jobs(model, commands, trans);
    this.addWidget(this.clusters);
    this.addWidget(this.jobs);
    this.timer = setInterval(() => this.isVisible && this.count(), 1000);
    model.changed.connect(this.draw, this);
    this.draw();
  }

  override dispose(): void {
    clearInterval(this.timer);
    this.model.changed.disconnect(this.draw, this);
    super.dispose();
  }

  private draw(): void {
    const { health } = this.model;
    const usable = health === 'well' || health === 'away' || health === 'asking';
    this.clusters.setHidden(!usable);
    this.jobs.setHidden(!usable);
    this.banner.setHidden(health === 'well' || health === 'asking');
    const key = `${health} ${this.model.since}`;
    if (key === this.key) return;
    this.key = key;
    this.waits = null;
    this.banner.node.replaceChildren(...this.missing());
  }

  /** What is missing, and what to do. */
  private missing(): Node[] {
    const { trans, model } = this;
    const retry = (label: string) =>
      button('refresh', label, () => void model.poll.refresh(), { text: true });
    const again = retry(trans.__('Try again'));
    if (model.health === 'away') {
      this.waits = el('p', { class: 'jp-RayOffload-quiet' });
      this.count();
      const since = clock(model.since).slice(0, 5);
      return [
        this.note(
          trans.__('No answer from the server since %1', since),
          [this.waits],
          [retry(trans.__('Try now'))]
        )
      ];
    }
    if (model.health === 'refused') {
      const hint = trans.__('Sign in to this Jupyter server again, or ask who runs it.');
      return [
        this.note(
          trans.__('The server refuses to show clusters and jobs'),
          [this.quiet(hint)],
          [again]
        )
      ];
    }
    if (model.health !== 'missing') return [];
    const command = 'jupyter rayoffload doctor';
    const said = [
      this.quiet(
        trans.__(
          'Without it clusters and jobs cannot be listed. `%1` still works, on Ray in the notebook’s own machine, with its panel under the cell.',
          '%%ray_job'
        )
      ),
      this.quiet(trans.__('This command says what is missing and how to mend it:')),
      el('p', {}, el('code', {}, command))
    ];
    const copy = button('copy', trans.__('Copy command'), () => void copyText(command), {
      text: true
    });
    return [this.note(trans.__('The server extension is not there'), said, [copy, again])];
  }

  private note(title: string, paragraphs: Node[], buttons: Node[]): HTMLElement {
    return el(
      'div',
      { class: 'jp-RayOffload-note', role: 'alert' },
      el(
        'div',
        { class: 'jp-RayOffload-state jp-mod-warning' },
        icon('state-warning'),
        el('span', {}, title)
      ),
      ...paragraphs,
      el('div', { class: 'jp-RayOffload-buttons' }, ...buttons)
    );
  }

  private quiet(text: string): HTMLElement {
    return el('p', { class: 'jp-RayOffload-quiet' }, sentence(text, this.model.now, []));
  }

  private count(): void {
    if (!this.waits) return;
    const left = Math.max(0, Math.ceil(this.model.next - Date.now() / 1000));
    this.waits.textContent = this.trans.__(
      'The list is as it was then. Trying again in %1 s.',
      Number.isFinite(left) ? left : '…'
    );
  }

  readonly clusters: Clusters;
  readonly jobs: Jobs;
  private readonly banner: Widget;
  private readonly timer: ReturnType<typeof setInterval>;
  private waits: HTMLElement | null = null;
  private key = '';
}
