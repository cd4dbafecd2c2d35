import { Dialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import { el } from '#panel/dom.js';

import { ApiError } from './api';

/** Ask before something is lost; the safe answer has the focus. */
export async function confirm(
  title: string,
  paragraphs: Array<Array<string | Node>>,
  accept: string,
  trans: TranslationBundle
): Promise<boolean> {
  const body = new Widget();
  body.addClass('jp-RayOffload');
  body.node.append(...paragraphs.map(parts => el('p', {}, ...parts)));
  const result = await showDialog({
    title,
    body,
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.warnButton({ label: accept })
    ],
    defaultButton: 0
  });
  return result.button.accept;
}

/** Say what could not be done, and what to do. */
export async function tell(title: string, error: unknown): Promise<void> {
  await showErrorMessage(title, words(error));
}

export function words(error: unknown): string {
  if (error instanceof ApiError) {
    const { message, hint } = error.fault;
    return [capital(message), hint].filter(Boolean).join('. ');
  }
  return error instanceof Error ? error.message : String(error);
}

export function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
