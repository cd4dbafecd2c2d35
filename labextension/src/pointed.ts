import type { JupyterFrontEnd } from '@jupyterlab/application';

/**
 * What the context menu that is open was opened on.
 *
 * JupyterLab's own `contextMenuHitTest` still tells of a menu that was closed long ago: a command of the palette
 * would be for a row that somebody pointed at then.
 */
export class Pointed {
  constructor({ contextMenu }: JupyterFrontEnd) {
    // Before JupyterLab hears of it: it asks at once which entries can be chosen.
    document.addEventListener('contextmenu', event => (this.at = event.target), true);
    // An entry that was chosen is carried out after the menu has closed.
    contextMenu.menu.aboutToClose.connect(() => setTimeout(() => (this.at = null)));
  }

  /** The element of a selector that it was opened in. */
  in(selector: string): HTMLElement | null {
    return this.at instanceof Element ? this.at.closest<HTMLElement>(selector) : null;
  }

  private at: EventTarget | null = null;
}
