// The panel of a cluster: state, what is in use, what can be done; it asks before it does what ends jobs.
import { button, el, icon, safeUrl, sentence, stateMark } from './dom.js';
import { ProfileForm } from './profile.js';

function meter({ name, share, text }) {
  if (share === null) return el('div', {}, el('dt', {}, name), el('dd', {}), el('dd', {}, text));
  const percent = Math.round(100 * Math.min(1, share));
  const attributes = {
    class: 'jp-RayOffload-meter',
    role: 'meter',
    'aria-label': name,
    'aria-valuemin': 0,
    'aria-valuemax': 100,
    'aria-valuenow': percent,
    'aria-valuetext': text,
  };
  const bar = el('span', attributes, el('i', { style: `width: ${percent}%` }));
  return el('div', {}, el('dt', {}, name), el('dd', {}, bar), el('dd', {}, text));
}

/** One view of the panel. Parts are drawn anew only when what they show has changed: focus and typing stay. */
class ClusterView {
  constructor(model, node, signal) {
    Object.assign(this, { model, node, offset: 0, slots: {}, times: {}, questions: 0 });
    this.said = el('span', { class: 'jp-RayOffload-sr', role: 'status' });
    const names = ['head', 'question', 'fault', 'meters', 'lines', 'form', 'history'];
    this.root = el(
      'section',
      { class: 'jp-RayOffload jp-RayOffload-panel jp-RayOffload-cluster', role: 'group', tabindex: '-1' },
      this.said,
      ...names.map((name) => (this.slots[name] = { node: document.createComment(name) }).node),
    );
    node.replaceChildren(this.root);
    const timer = setInterval(() => Object.values(this.times).flat().forEach((refresh) => refresh()), 1000);
    signal?.addEventListener('abort', () => clearInterval(timer));
  }

  /** The kernel's clock, seconds. */
  now = () => Date.now() / 1000 + this.offset;

  draw() {
    const view = this.model.get('view');
    this.view = view;
    if (view.now) this.offset = view.now - Date.now() / 1000;
    const focused = this.focused();
    if (this.asking && !view.actions.some((action) => action.do === this.asking.do && !action.rests)) this.asking = null;
    this.root.setAttribute('aria-label', view.group);
    this.announce(view.status);
    this.slot('head', [view.state, view.word, view.name, view.busy, view.actions], () => this.head());
    this.slot('question', [this.asking, view.asked], () => this.question());
    this.slot('fault', view.fault, () => this.fault());
    this.slot('meters', [view.meters, view.workers], () => this.meters());
    this.slot('lines', view.lines, () => this.lines());
    this.slot('form', view.form, () => this.form());
    this.profiles?.rest(Boolean(view.busy), view.words.asked);
    this.slot('history', view.history, () => this.history());
    this.restore(focused);
  }

  slot(name, shown, make) {
    const slot = this.slots[name];
    const key = JSON.stringify(shown ?? null);
    if (slot.key === key) return;
    this.times[name] = [];
    this.drawing = name;
    const node = make() ?? document.createComment(name);
    slot.node.replaceWith(node);
    Object.assign(slot, { key, node });
  }

  // -------------------------------------------------------------------- parts

  head() {
    const { view } = this;
    const busy = view.busy && this.sentence(view.busy);
    return el(
      'div',
      { class: 'jp-RayOffload-row' },
      stateMark(view.state, view.word),
      el('span', { class: 'jp-RayOffload-name', title: view.name }, view.name),
      el('span', { class: 'jp-RayOffload-meta' }, busy || null),
      el('span', { class: 'jp-RayOffload-actions' }, ...view.actions.map((action) => this.action(action))),
    );
  }

  action(action) {
    if (action.href) {
      const href = safeUrl(action.href);
      const attributes = { class: 'jp-RayOffload-button', href, target: '_blank', rel: 'noopener noreferrer' };
      const name = { title: action.label, 'aria-label': action.label, 'data-do': action.do };
      return href && el('a', { ...attributes, ...name }, icon(action.icon));
    }
    const act = (event) => (action.confirm ? this.ask(action) : this.send(action.do, {}, event.currentTarget));
    const control = button(action.icon, action.label, act, { text: action.text, 'data-do': action.do, title: action.label });
    if (action.rests) this.rest(control);
    return control;
  }

  /** What is asked before jobs end: the safe answer comes first, Escape gives it. */
  question() {
    const { asking, view } = this;
    if (!asking) return null;
    const lost = view.asked?.id === this.questions ? view.asked.text : view.words.looking;
    const yes = () => {
      this.ask(null);
      this.send(asking.do, {});
    };
    const node = el(
      'div',
      { class: 'jp-RayOffload-question', role: 'alertdialog', 'aria-label': asking.confirm.question },
      el('p', {}, asking.confirm.question),
      el('p', { 'aria-live': 'polite' }, this.sentence(lost)),
      el(
        'div',
        { class: 'jp-RayOffload-buttons' },
        button('close', asking.confirm.keep, () => this.ask(null), { text: true, 'data-keep': true, 'data-do': 'keep' }),
        button(asking.icon, asking.label, yes, { text: true, 'data-do': `${asking.do}!` }),
      ),
    );
    node.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      this.ask(null);
    });
    return node;
  }

  ask(action) {
    const before = this.asking;
    this.asking = action;
    if (action) this.model.send({ do: 'ask', options: { verb: action.do, id: ++this.questions } });
    this.draw();
    const next = action ? '[data-keep]' : `[data-do="${before.do}"]`;
    (this.root.querySelector(next) ?? this.root).focus({ preventScroll: true });
  }

  fault() {
    const { fault } = this.view;
    if (!fault) return null;
    return el(
      'div',
      { class: 'jp-RayOffload-fault' },
      icon('state-warning'),
      el('div', {}, this.sentence(fault.main), ' ', el('span', { class: 'jp-RayOffload-quiet' }, this.sentence(fault.second))),
    );
  }

  meters() {
    const { meters, workers } = this.view;
    if (!meters.length && !workers) return null;
    const rows = [...meters.map(meter), workers && this.workers(workers)].filter(Boolean);
    return el('dl', { class: 'jp-RayOffload-meters' }, ...rows);
  }

  /** How many workers are wanted: nothing is sent before "Scale" is pressed, for fewer of them end tasks. */
  workers({ count, text, rests }) {
    const { words } = this.view;
    const input = el('input', { type: 'number', min: 0, step: 1, value: count, 'aria-label': words.workers, 'data-do': 'count' });
    const valid = () => /^\d+$/.test(input.value);
    const step = (by) => () => {
      input.value = Math.max(0, (valid() ? Number(input.value) : count) + by);
      show();
    };
    const less = button('fewer', words.fewer, step(-1), { 'data-do': 'fewer' });
    const more = button('add', words.more, step(1), { 'data-do': 'more' });
    const scale = button('scale', words.scale, () => this.send('scale', { workers: Number(input.value) }, scale), { text: true, 'data-do': 'scale' });
    const show = () => {
      input.setAttribute('aria-invalid', String(!valid()));
      input.title = valid() ? '' : words.count;
      less.disabled = rests || (valid() && Number(input.value) === 0);
      const why = rests ? words.asked : !valid() ? words.count : Number(input.value) === count ? words.scaled : '';
      scale.disabled = Boolean(why);
      scale.title = why || words.scale; // where there is no room for the label
    };
    input.addEventListener('input', show);
    input.addEventListener('keydown', (event) => {
      event.stopPropagation(); // the notebook has keys of its own
      if (event.key === 'Enter' && !scale.disabled) scale.click();
    });
    input.disabled = more.disabled = rests;
    show();
    const stepper = el('span', { class: 'jp-RayOffload-stepper', role: 'group', 'aria-label': words.workers }, less, input, more, scale);
    return el('div', {}, el('dt', {}, words.workers), el('dd', { class: 'jp-mod-left' }, stepper), el('dd', {}, text));
  }

  lines() {
    const lines = this.view.lines.map((line, i) => el('p', { class: i ? 'jp-RayOffload-quiet' : null }, this.sentence(line)));
    return el('div', { class: 'jp-RayOffload-lines' }, ...lines);
  }

  form() {
    this.profiles = null;
    const { form, words } = this.view;
    if (!form) return null;
    this.profiles = new ProfileForm(form.profiles, words, (options) => this.send('start', options));
    return this.profiles.node;
  }

  history() {
    const { history, words } = this.view;
    if (!history.length) return null;
    const open = this.slots.history.node.open;
    const rows = [...history].reverse().map(({ at, state, word, text }) =>
      el(
        'li',
        {},
        el('time', {}, this.sentence(`{at:${at.toFixed(0)}}`)),
        stateMark(state, word),
        el('span', { class: 'jp-RayOffload-quiet' }, this.sentence(text)),
      ),
    );
    const summary = el('summary', { 'data-do': 'history' }, icon('right', 'jp-mod-caret'), words.history);
    const list = el('ol', { class: 'jp-RayOffload-history' }, ...rows);
    return el('details', { class: 'jp-RayOffload-more', open }, summary, list);
  }

  // -------------------------------------------------------------------- what is asked for, and focus

  /** Hand it on. The control rests until the kernel says that it is under way: a busy one takes its time. */
  send(verb, options, control = null) {
    this.model.send({ do: verb, options });
    if (control) this.rest(control);
  }

  rest(control) {
    control.disabled = true;
    control.title = this.view.words.asked;
  }

  sentence(text) {
    return sentence(text, this.now, this.times[this.drawing]);
  }

  /** Say a change to screen readers; a number that counts on is none. */
  announce(text) {
    const kept = text.replace(/[\d.,]+/g, '').replace(/\{.*?\}/g, '');
    if (kept === this.lastSaid) return;
    this.lastSaid = kept;
    this.said.replaceChildren(sentence(text, this.now, []));
  }

  focused() {
    const active = this.node.getRootNode().activeElement;
    return this.root.contains(active) ? { active, name: active.dataset.do } : null;
  }

  /** Focus stays where it was; if its control has gone or rests, it goes to the panel. */
  restore(focused) {
    if (!focused || (this.root.contains(focused.active) && !focused.active.disabled)) return;
    const same = focused.name && this.root.querySelector(`[data-do="${focused.name}"]`);
    (same && !same.disabled ? same : this.root).focus({ preventScroll: true });
  }
}

export default {
  render({ model, el: node, signal }) {
    const view = new ClusterView(model, node, signal);
    model.on('change:view', () => view.draw());
    view.draw();
  },
};
