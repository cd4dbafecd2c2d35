// The form of a new cluster: a profile of the site, and what of it may be chosen.
import { button, el } from './dom.js';

const UNITS = { '': 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12, p: 1e15, ki: 2 ** 10, mi: 2 ** 20, gi: 2 ** 30, ti: 2 ** 40, pi: 2 ** 50 };

/** Bytes of a size such as 8GiB or 500MB; NaN where it is none. */
export function bytesOf(text) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([kmgtp]i?)?b?\s*$/i.exec(String(text));
  return found ? Number(found[1]) * UNITS[(found[2] ?? '').toLowerCase()] : NaN;
}

const counted = { integer: Number, number: Number, size: bytesOf };
const patterns = { integer: /^[+-]?\d+$/, number: /^[+-]?(\d+\.?\d*|\.\d+)$/, size: /\S/ };
const kindWords = { integer: 'whole', number: 'number', size: 'size', choice: 'choice' };
let made = 0;

/** What may be entered, in words. */
function bounds({ minimum, maximum, unit }, words) {
  const said = (amount) => [amount, unit].filter(Boolean).join(' ');
  const put = (text) => text.replace('{least}', maximum == null ? said(minimum) : minimum).replace('{most}', said(maximum));
  if (minimum != null && maximum != null) return put(words.between);
  if (minimum != null) return put(words.least);
  return maximum == null ? unit ?? '' : put(words.most);
}

/** Say what is wrong with a text that was entered; '' where nothing is. */
export function wrong(field, text, words) {
  const { kind, minimum, maximum, choices = [] } = field;
  if (kind === 'name') return field.check(text.trim());
  if (kind === 'choice') return choices.some(({ value }) => String(value) === text) ? '' : words.choice;
  const amount = counted[kind](text);
  if (!patterns[kind].test(text.trim()) || !Number.isFinite(amount)) return words[kindWords[kind]];
  const outside = (minimum != null && amount < counted[kind](minimum)) || (maximum != null && amount > counted[kind](maximum));
  return outside ? bounds(field, words) : '';
}

/** One field: a label, a control, and one line for what may be entered or what is wrong with it. */
class Field {
  constructor(field, words) {
    Object.assign(this, { field, words, hint: bounds(field, words) });
    const id = `jp-RayOffload-field-${++made}`;
    this.note = el('span', { class: 'jp-RayOffload-hint', id: `${id}-note` }, this.hint);
    const attributes = { id, 'aria-describedby': `${id}-note`, 'data-do': `field ${field.name}` };
    this.control = field.kind === 'choice' ? this.choice(attributes) : el('input', { ...attributes, type: 'text', value: field.default ?? '', ...this.keys() });
    this.node = el('div', { class: 'jp-RayOffload-field' }, el('label', { for: id }, field.title ?? field.name), this.control, this.note);
    this.control.addEventListener('input', () => this.check());
    this.control.addEventListener('keydown', (event) => event.stopPropagation()); // the notebook has keys of its own
  }

  keys() {
    return { inputmode: { integer: 'numeric', number: 'decimal' }[this.field.kind], autocomplete: 'off', spellcheck: 'false' };
  }

  choice(attributes) {
    const options = (this.field.choices ?? []).map(({ value, title }) =>
      el('option', { value, selected: value === this.field.default }, title ?? String(value)),
    );
    return el('select', attributes, ...options);
  }

  check() {
    const fault = wrong(this.field, this.control.value, this.words);
    this.control.setAttribute('aria-invalid', String(Boolean(fault)));
    this.note.textContent = fault || this.hint;
    return !fault;
  }

  get value() {
    const { kind, choices = [] } = this.field;
    const text = this.control.value.trim();
    if (kind === 'name') return text;
    if (kind === 'choice') return choices.find(({ value }) => String(value) === text).value;
    return kind === 'size' ? text : Number(text);
  }
}

/**
 * Profiles as a list to choose from, the fields of the chosen one below it.
 *
 * Where the cluster is to have a name of its own, `naming` has the `title` and `default` of that field, and `check`,
 * which says what is wrong with a text.
 */
export class ProfileForm {
  constructor(profiles, words, start, naming = null) {
    Object.assign(this, { profiles, start });
    this.name = naming && new Field({ ...naming, name: 'name', kind: 'name' }, words);
    this.fields = profiles.map((profile) => (profile.fields ?? []).map((field) => new Field(field, words)));
    this.groups = this.fields.map((fields) => el('div', { class: 'jp-RayOffload-fields' }, ...fields.map((field) => field.node)));
    const group = `jp-RayOffload-profile-${++made}`;
    this.radios = profiles.map(({ name }, i) =>
      el('input', { type: 'radio', name: group, value: name, 'data-do': `profile ${i}`, onchange: () => this.choose(i) }),
    );
    const rows = profiles.map(({ name, title, description }, i) => {
      const said = [el('span', {}, title ?? name), description ? el('span', {}, description) : null];
      return el('label', { class: 'jp-RayOffload-profile' }, this.radios[i], ...said);
    });
    this.button = button('start', words.start, () => {}, { text: true, 'data-do': 'start' });
    this.button.type = 'submit';
    this.button.classList.add('jp-mod-primary');
    this.node = el(
      'form',
      { class: 'jp-RayOffload-form', novalidate: true, onsubmit: (event) => this.submit(event) },
      rows.length ? el('fieldset', {}, el('legend', {}, words.profile), ...rows) : null,
      this.name?.node ?? null,
      ...this.groups,
      el('div', { class: 'jp-RayOffload-buttons' }, this.button),
    );
    this.choose(Math.max(0, profiles.findIndex((profile) => profile.default)));
  }

  choose(chosen) {
    this.chosen = chosen;
    this.radios.forEach((radio, i) => (radio.checked = i === chosen));
    this.groups.forEach((group, i) => (group.hidden = i !== chosen || !group.childElementCount));
  }

  /** While something is under way, nothing else can be started. */
  rest(rests, why) {
    this.button.disabled = rests;
    this.button.title = rests ? why : '';
  }

  submit(event) {
    event.preventDefault();
    if (this.button.disabled) return;
    const fields = this.fields[this.chosen] ?? [];
    const faulty = [this.name, ...fields].filter((field) => field && !field.check());
    if (faulty.length) {
      faulty[0].control.focus();
      return;
    }
    const options = Object.fromEntries(fields.map((field) => [field.field.name, field.value]));
    const asked = { profile: this.profiles[this.chosen]?.name ?? '', options };
    this.start(this.name ? { ...asked, name: this.name.value } : asked);
  }
}
