import type { TranslationBundle } from '@jupyterlab/translation';

import { button, el } from '#panel/dom.js';
import { ProfileForm } from '#panel/profile.js';

import { capital, words } from './dialogs';
import type { Profile } from './tokens';

/** What a cluster can be called: `ClusterName` of openapi.yaml. */
const NAME = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** What is asked for: a profile, and the values of its fields. */
export interface Wanted {
  profile: string;
  options: Record<string, unknown>;
}

/** What the form must know. */
export interface Known {
  profiles: Profile[];
  /** Words of the form, as the server gives them with a cluster. */
  words: Record<string, string>;
  /** The name that is proposed. */
  name: string;
  /** Names that are taken. */
  taken: () => string[];
}

/** The form of a further cluster: its name, and one of the site's profiles. */
export class NewCluster {
  constructor(
    private readonly known: Known,
    private readonly start: (name: string, wanted: Wanted) => Promise<void>,
    private readonly close: () => void,
    private readonly trans: TranslationBundle
  ) {
    const naming = {
      title: trans.__('Name'),
      default: known.name,
      check: (text: string) => this.wrong(text)
    };
    this.form = new ProfileForm(
      known.profiles,
      known.words,
      ({ name, ...wanted }) => void this.ask(name, wanted),
      naming
    );
    const title = trans.__('New cluster');
    this.fault = el('div', { class: 'jp-RayOffload-formFault', role: 'alert' });
    const row = el(
      'div',
      { class: 'jp-RayOffload-row' },
      el('span', { class: 'jp-RayOffload-name' }, title),
      el('span', { class: 'jp-RayOffload-actions' }, button('close', trans.__('Close'), close))
    );
    const whole = { role: 'group', 'aria-label': title };
    this.node = el(
      'li',
      {
        class: 'jp-RayOffload-newCluster',
        onkeydown: (event: KeyboardEvent) => this.key(event)
      },
      el('div', whole, row, this.form.node, this.fault)
    );
  }

  readonly node: HTMLElement;

  /** Go to the first thing that can be chosen. */
  focus(): void {
    const first = (selector: string) => this.node.querySelector<HTMLElement>(selector);
    (first('input:checked') ?? first('form input'))?.focus();
  }

  /** What is wrong with a name; empty where nothing is. */
  private wrong(text: string): string {
    const { trans } = this;
    if (!NAME.test(text))
      return trans.__(
        'Lower-case letters, digits and hyphens between them, at most %1 characters',
        63
      );
    return this.known.taken().includes(text) ? trans.__('Cluster %1 is there already', text) : '';
  }

  private async ask(name: string, wanted: Wanted): Promise<void> {
    this.fault.replaceChildren();
    this.form.rest(true, this.known.words.asked);
    try {
      await this.start(name, wanted);
      this.close();
    } catch (error) {
      this.fault.replaceChildren(el('p', {}, capital(words(error))));
    } finally {
      this.form.rest(false, '');
    }
  }

  private key(event: KeyboardEvent): void {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    this.close();
  }

  private readonly form: ProfileForm;
  private readonly fault: HTMLElement;
}
