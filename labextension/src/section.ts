import { Widget } from '@lumino/widgets';

import { el, icon } from '#panel/dom.js';

let made = 0;

/** A part of the sidebar, with a title that opens and closes it; as high as what it shows. */
export class Section extends Widget {
  constructor(title: string, tools: HTMLElement[], body: HTMLElement) {
    const id = `jp-RayOffload-section-${++made}`;
    const toggle = el(
      'button',
      {
        type: 'button',
        class: 'jp-RayOffload-toggle',
        'aria-expanded': 'true',
        'aria-controls': id
      },
      icon('down', 'jp-mod-caret'),
      el('span', { class: 'lm-AccordionPanel-titleLabel' }, title)
    );
    const head = el(
      'h3',
      { class: 'jp-AccordionPanel-title jp-RayOffload-title' },
      toggle,
      el('span', { class: 'jp-RayOffload-actions' }, ...tools)
    );
    body.id = id;
    body.classList.add('jp-RayOffload-body');
    super({ node: el('section', { class: 'jp-RayOffload', 'aria-label': title }, head, body) });
    this.addClass('jp-RayOffload-section');
    toggle.addEventListener('click', () => {
      const open = body.hidden;
      body.hidden = !open;
      toggle.setAttribute('aria-expanded', String(open));
      this.toggleClass('jp-mod-closed', !open);
    });
  }
}
