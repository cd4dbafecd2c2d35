import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import { Widget } from '@lumino/widgets';

import { clock, el, icon, sentence } from '#panel/dom.js';

import { CommandIDs } from './ids';
import type { Model } from './model';

/** Jobs that failed so long ago are no news any more, seconds. */
const NEWS = 600;

/** One line about Ray in the status bar; nothing while there is nothing to say. */
export class StatusItem extends Widget {
  constructor(
    private readonly model: Model,
    private readonly commands: CommandRegistry,
    private readonly trans: TranslationBundle,
    private readonly changed: () => void
  ) {
    super();
    this.addClass('jp-RayOffload');
    model.changed.connect(this.draw, this);
    this.draw();
  }

  override dispose(): void {
    this.model.changed.disconnect(this.draw, this);
    super.dispose();
  }

  get says(): boolean {
    return this.text() !== null;
  }

  private draw(): void {
    const said = this.text();
    this.changed();
    const key = JSON.stringify(said);
    if (!said || key === this.key) return;
    this.key = key;
    const mark = said.state
      ? el(
          'span',
          { class: `jp-RayOffload-state jp-mod-${said.state}` },
          icon(`state-${said.state}`)
        )
      : icon('ray');
    const open = () => void this.commands.execute(CommandIDs.openSidebar);
    this.node.replaceChildren(
      el(
        'button',
        {
          type: 'button',
          class: 'jp-RayOffload-button jp-RayOffload-status',
          title: this.trans.__('Open the Ray sidebar'),
          onclick: open
        },
        mark,
        sentence(said.text, this.model.now, [])
      )
    );
  }

  private text(): { text: string; state?: string } | null {
    const { model, trans } = this;
    if (model.health === 'away') {
      return {
        text: trans.__('Ray: unknown since %1', clock(model.since).slice(0, 5)),
        state: 'unknown'
      };
    }
    if (model.health !== 'well') return null;
    const running = model.jobs.filter(job => !job.ended).length;
    if (running) return { text: trans._n('Ray: %1 running', 'Ray: %1 running', running) };
    const { cluster } = model;
    if (cluster?.phase === 'starting') {
      const reason = cluster.reason ?? '';
      const waits = reason.slice(0, 1).toLowerCase() + reason.slice(1);
      return { text: waits ? trans.__('Ray: starting, %1', waits) : trans.__('Ray: starting') };
    }
    const now = model.now();
    const failed = model.jobs.filter(
      job => ['failed', 'lost'].includes(job.state) && now - (job.finished ?? 0) < NEWS
    ).length;
    if (failed)
      return { text: trans._n('Ray: %1 failed', 'Ray: %1 failed', failed), state: 'failed' };
    if (cluster?.phase === 'suspended') return { text: trans.__('Ray: suspended') };
    return null;
  }

  private key = '';
}
