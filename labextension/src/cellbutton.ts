import type { Cell } from '@jupyterlab/cells';
import { CodeCell } from '@jupyterlab/cells';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import { Widget } from '@lumino/widgets';

import { button, duration, el, icon } from '#panel/dom.js';

import { canBeJob, jobOf } from './cells';
import { CommandIDs } from './ids';
import type { Model } from './model';

/** The button of a cell's toolbar: it runs the cell on Ray, or shows how the cell's last job stands. */
export class CellButton extends Widget {
  constructor(
    private readonly cell: Cell,
    private readonly model: Model,
    private readonly commands: CommandRegistry,
    private readonly trans: TranslationBundle
  ) {
    super();
    this.addClass('jp-RayOffload');
    this.addClass('jp-RayOffload-cellButton');
    model.changed.connect(this.draw, this);
    cell.model.contentChanged.connect(this.draw, this);
    if (cell instanceof CodeCell) cell.model.outputs.changed.connect(this.draw, this);
    this.draw();
  }

  override dispose(): void {
    if (this.isDisposed) return;
    this.model.changed.disconnect(this.draw, this);
    this.cell.model?.contentChanged.disconnect(this.draw, this);
    if (this.cell instanceof CodeCell) this.cell.model?.outputs.changed.disconnect(this.draw, this);
    super.dispose();
  }

  private draw(): void {
    if (this.cell.isDisposed) return;
    const isCode = this.cell instanceof CodeCell;
    this.setHidden(!isCode);
    if (!isCode) return;
    const mark = jobOf(this.cell);
    const job = mark && this.model.job(mark.job);
    const shown = job && (!job.ended || ['failed', 'lost'].includes(job.state)) ? job : null;
    const { trans } = this;
    const source = this.cell.model.sharedModel.getSource();
    const away = this.model.health === 'away';
    const key = JSON.stringify([shown, away, canBeJob(source)]);
    if (key === this.key) return;
    this.key = key;
    if (shown) {
      const took =
        shown.begun && !shown.ended ? `, ${duration(this.model.now() - shown.begun)}` : '';
      const label = trans.__('Job %1: %2%3. Open it', shown.name, shown.word.toLowerCase(), took);
      const open = () => void this.commands.execute(CommandIDs.openJob, { id: shown.id });
      const control = button('ray', label, open);
      const state = el(
        'span',
        { class: `jp-RayOffload-state jp-mod-${shown.state}` },
        icon(`state-${shown.state}`)
      );
      control.replaceChildren(state);
      this.node.replaceChildren(control);
      return;
    }
    const label = trans.__('Run cell on Ray');
    const control = button('ray', label, () => void this.commands.execute(CommandIDs.runCell));
    control.disabled = away || !canBeJob(source);
    const why = away
      ? trans.__('the server does not answer')
      : canBeJob(source)
        ? ''
        : trans.__('an empty cell, or another magic of a whole cell');
    if (why) {
      control.title = `${label}: ${why}`;
      control.setAttribute('aria-label', control.title);
    }
    this.node.replaceChildren(control);
  }

  private key = '';
}
