// The panel of a job: draws the tree of words that the kernel sends (view.py), and sends back what is asked for.
import { button, copyText, clock, el, icon, lineNodes, running, safeUrl, sentence, stateMark } from './dom.js';
import { LogStore, LogView } from './log.js';
import { drawOutputs } from './outputs.js';

/** What the page around can do for a panel, where our JupyterLab extension is there: `open(id)`. */
const host = () => globalThis.jupyterRayOffload ?? {};

/** One view of a panel; several may show the same job. */
export class Panel {
  constructor(model, store, heard, node, signal) {
    Object.assign(this, { model, heard, node, signal });
    /** What counts, by the slot that it stands in. */
    this.times = {};
    this.slots = {};
    this.log = new LogView(store, signal);
    this.outputs = el('div', { class: 'jp-RayOffload-outputs' });
    this.said = el('span', { class: 'jp-RayOffload-sr', role: 'status' });
    const timer = setInterval(() => Object.values(this.times).flat().forEach((refresh) => refresh()), 1000);
    signal.addEventListener('abort', () => clearInterval(timer));
    const redraw = () => this.draw();
    heard.listeners.add(redraw);
    signal.addEventListener('abort', () => heard.listeners.delete(redraw));
    // Some hosts mark a widget whose kernel has gone by this class.
    const watch = new MutationObserver(() => this.draw());
    watch.observe(node, { attributes: true, attributeFilter: ['class'] });
    signal.addEventListener('abort', () => watch.disconnect());
  }

  get gone() {
    return this.heard.gone || this.node.classList.contains('jupyter-widgets-disconnected');
  }

  /** The kernel's clock, seconds. */
  now = () => Date.now() / 1000 + this.heard.offset;

  draw() {
    const view = this.shownView();
    if (!view?.id) return;
    const focused = this.focusedControl();
    const shape = view.line ? 'line' : 'box';
    if (shape !== this.shape) {
      this.shape = shape;
      this.slots = {};
      this.root = view.line ? this.lineRoot(view) : this.boxRoot(view);
      this.node.classList.add('jp-RayOffload-host');
      this.node.replaceChildren(this.root, this.outputs);
    }
    this.root.setAttribute('aria-label', view.group);
    this.announce(view.status);
    this.slot('head', [view.state, view.word, view.name, view.time, view.meta, view.actions], () => this.head(view));
    this.slot('strip', view.strip, () => this.strip(view));
    this.slot('reason', view.reason, () => this.reason(view));
    this.slot('batch', view.batch, () => this.batch(view));
    this.slot('values', view.values, () => this.values(view));
    this.slot('failed', view.failed, () => this.failed(view));
    this.slot('foot', [view.footer, view.actions], () => this.foot(view));
    this.slot('traceback', view.traceback, () => this.traceback(view));
    this.restoreFocus(focused);
    this.log.update(view.log, view.ended || this.gone);
  }

  /** A part of the panel, drawn anew only when what it shows has changed: the others keep scroll and selection. */
  slot(name, shown, make) {
    const slot = this.slots[name];
    const key = JSON.stringify(shown);
    if (!slot || slot.key === key) return;
    this.times[name] = [];
    this.drawing = name;
    const node = make() ?? document.createComment(name);
    slot.node.replaceWith(node);
    Object.assign(slot, { key, node });
  }

  place(name) {
    const node = document.createComment(name);
    this.slots[name] = { node };
    return node;
  }

  /** The kernel's view, or what is still true of it when the kernel has gone. */
  shownView() {
    const view = this.model.get('view');
    if (!this.gone || !view?.id) return view;
    const live = (action) => ['copy', 'open'].includes(action.do);
    const actions = view.actions.filter(live);
    if (view.ended) {
      const reason = view.reason && { ...view.reason, action: null };
      const failed = view.failed && { ...view.failed, action: null };
      return { ...view, actions, reason, failed };
    }
    const meta = view.gone.meta.map((fact) => fact.replace('{now}', clock(this.heard.at)));
    return { ...view, ...view.gone, meta, actions: [], time: null, strip: [], values: [], batch: null, failed: null };
  }

  // -------------------------------------------------------------------- the two shapes

  /** A job that ended well: one line, which opens without a kernel. */
  lineRoot() {
    const parts = ['strip', 'batch', 'values', 'foot'].map((name) => this.place(name));
    const root = el(
      'details',
      { class: 'jp-RayOffload jp-RayOffload-panel jp-mod-line' },
      this.place('head'),
      this.said,
      ...parts,
      this.log.node,
    );
    root.addEventListener('toggle', () => root.open && this.log.draw());
    return root;
  }

  boxRoot() {
    const parts = ['head', 'strip', 'reason', 'batch', 'values', 'failed', 'traceback'].map((name) => this.place(name));
    const attributes = { class: 'jp-RayOffload jp-RayOffload-panel', role: 'group', tabindex: '-1' };
    return el('section', attributes, this.said, ...parts, this.log.node);
  }

  // -------------------------------------------------------------------- parts

  head(view) {
    const facts = view.meta.flatMap((fact) => [' · ', this.sentence(fact)]);
    const time = view.time ? this.time(view.time) : null;
    const title = [
      stateMark(view.state, view.word),
      el('span', { class: 'jp-RayOffload-name', title: view.name }, view.name),
      el('span', { class: 'jp-RayOffload-meta' }, time, ...(time ? facts : facts.slice(1))),
    ];
    const head = { class: 'jp-RayOffload-head' };
    if (view.line) return el('summary', head, ...title, icon('right', 'jp-mod-caret'));
    return el('header', head, ...title, this.actions(view));
  }

  foot(view) {
    const said = el('div', { class: 'jp-RayOffload-quiet' }, this.sentence(view.footer));
    return el('div', { class: 'jp-RayOffload-reason' }, said, this.actions(view));
  }

  actions({ actions }) {
    return el('span', { class: 'jp-RayOffload-actions' }, ...actions.map((action) => this.action(action)));
  }

  /** A control; one that cannot work here is not there. */
  action(action) {
    if (action.do === 'open' && !host().open) return null;
    const options = { text: action.text, 'data-do': action.do };
    if (action.do === 'dashboard') {
      const href = safeUrl(action.href);
      return href && this.link(action, href);
    }
    return button(action.icon, action.label, (event) => this.act(action, event.currentTarget), options);
  }

  link(action, href) {
    const attributes = { class: 'jp-RayOffload-button', href, target: '_blank', rel: 'noopener noreferrer' };
    return el('a', { ...attributes, title: action.label, 'aria-label': action.label }, icon(action.icon));
  }

  act(action, control) {
    if (action.do === 'copy') return copyText(action.value);
    if (action.do === 'open') return host().open(this.model.get('view').id);
    this.model.send({ do: action.do, options: action.options ?? {} });
    control.disabled = true;
    control.title = this.model.get('view').log.words.asked;
  }

  strip({ strip, log }) {
    if (!strip.length) return null;
    const icons = { done: 'check', current: 'right', failed: 'close', lost: 'close' };
    const items = strip.map(({ name, mod, time }) => {
      const mark = mod && icon(icons[mod]);
      if (mark) {
        mark.removeAttribute('class');
        if (mod !== 'current') {
          mark.removeAttribute('aria-hidden');
          mark.setAttribute('role', 'img');
          mark.setAttribute('aria-label', log.words[mod]);
        }
      }
      const current = mod === 'current';
      const attributes = { class: mod && !current ? `jp-mod-${mod}` : null, 'aria-current': current ? 'step' : null };
      return el('li', attributes, mark, el('b', {}, name), time ? this.time(time) : null);
    });
    return el('ol', { class: 'jp-RayOffload-strip', 'aria-label': log.words.steps }, ...items);
  }

  reason({ reason }) {
    if (!reason) return null;
    const quiet = reason.quiet ? 'jp-RayOffload-quiet' : null;
    const said = el('div', { class: quiet });
    if (reason.main) said.append(this.sentence(reason.main));
    if (reason.second) {
      if (reason.main) said.append(el('br'));
      said.append(el('span', { class: 'jp-RayOffload-quiet' }, this.sentence(reason.second)));
    }
    if (reason.event) {
      const summary = el('summary', {}, icon('right', 'jp-mod-caret'), reason.event.title);
      said.append(el('details', { class: 'jp-RayOffload-more' }, summary, el('code', {}, reason.event.text)));
    }
    return el('div', { class: 'jp-RayOffload-reason' }, said, reason.action ? this.action(reason.action) : null);
  }

  /** How far a batch is: one bar in parts, and the same in words below. */
  batch({ batch }) {
    if (!batch) return null;
    const bar = {
      class: 'jp-RayOffload-bar',
      role: 'progressbar',
      'aria-label': batch.label,
      'aria-valuemin': 0,
      'aria-valuemax': batch.total,
      'aria-valuenow': batch.done,
      'aria-valuetext': batch.text,
    };
    const parts = batch.parts.map(([name, share]) => el('i', { class: `jp-mod-${name}`, style: `width: ${share}%` }));
    const counts = batch.counts.map(({ state, text }) => el('li', {}, stateMark(state, text)));
    return el(
      'div',
      { class: 'jp-RayOffload-batch' },
      el('div', bar, ...parts),
      el('ul', { class: 'jp-RayOffload-counts' }, ...counts),
    );
  }

  /** The first items that failed, and the retry of all of them. */
  failed({ failed }) {
    if (!failed) return null;
    const look = ['jp-mod-number', null, 'jp-mod-fill', 'jp-mod-number'];
    const heads = failed.columns.map((title, i) => el('th', { scope: 'col', class: look[i] }, title));
    const cell = (text, i) => el('td', { class: look[i] }, i === 1 || i === 2 ? el('code', {}, text) : text);
    const rows = failed.rows.map((row) => el('tr', {}, ...row.map(cell)));
    const actions = failed.action && el('span', { class: 'jp-RayOffload-actions' }, this.action(failed.action));
    return el(
      'div',
      { class: 'jp-RayOffload-failedList' },
      el('header', {}, el('span', {}, failed.title), actions),
      el(
        'table',
        { class: 'jp-RayOffload-table' },
        el('thead', {}, el('tr', {}, ...heads)),
        el('tbody', {}, ...rows),
      ),
      failed.more ? el('p', {}, this.sentence(failed.more)) : null,
    );
  }

  values({ values }) {
    if (!values.length) return null;
    const rows = values.flatMap(({ title, items, note }) => {
      const chips = items.map(({ name, facts = [], attention, title: why }) =>
        el(
          'li',
          { class: attention ? 'jp-mod-attention' : null, title: why || null },
          el('code', {}, name),
          ...facts.map((fact) => el('span', {}, fact)),
        ),
      );
      if (note) chips.push(el('li', { class: 'jp-mod-none' }, note));
      return [el('dt', {}, title), el('dd', {}, el('ul', { class: 'jp-RayOffload-chips' }, ...chips))];
    });
    return el('dl', { class: 'jp-RayOffload-values' }, ...rows);
  }

  traceback({ traceback }) {
    if (!traceback) return null;
    const lines = traceback.lines.flatMap((line, i) => {
      const nodes = lineNodes(line);
      const shown = i === traceback.marked ? el('span', { class: 'jp-RayOffload-cellLine' }, nodes) : nodes;
      return i ? ['\n', shown] : [shown];
    });
    const text = { class: 'jp-RenderedText', 'data-mime-type': 'application/vnd.jupyter.stderr', tabindex: '0' };
    return el('div', { class: 'jp-RayOffload-traceback' }, el('div', text, el('pre', {}, ...lines)));
  }

  time(time) {
    return time.text === undefined ? running(time.begin, this.now, this.times[this.drawing]) : el('time', {}, time.text);
  }

  sentence(text) {
    return sentence(text, this.now, this.times[this.drawing]);
  }

  /** Say a change to screen readers; a number that counts on is none. */
  announce(text) {
    const kept = text.replace(/[\d.,]+/g, '').replace(/\{.*?\}/g, '');
    if (kept === this.lastSaid) return;
    this.lastSaid = kept;
    this.said.textContent = sentence(text, this.now, []).textContent;
  }

  // -------------------------------------------------------------------- focus

  focusedControl() {
    const active = this.node.getRootNode().activeElement;
    return this.root?.contains(active) && !this.log.node.contains(active) ? active.dataset.do ?? '' : null;
  }

  /** Focus stays where it was; if its control has gone, it goes to the panel. */
  restoreFocus(name) {
    if (name === null) return;
    const same = name && this.root.querySelector(`[data-do="${name}"]`);
    (same || this.root.querySelector('summary') || this.root).focus({ preventScroll: true });
  }
}

/** Tell when the kernel of a model has gone; a host whose manager shows no kernel never does. */
function watchKernel(model, gone) {
  const kernel = model.widget_manager?.kernel;
  const over = ['restarting', 'autorestarting', 'terminating', 'dead'];
  kernel?.statusChanged?.connect?.((_, status) => over.includes(status) && gone());
  kernel?.disposed?.connect?.(() => gone());
}

// anywidget calls this once for each job: the log is kept here, as messages come before and between views.
export default () => {
  const heard = { offset: 0, at: Date.now() / 1000, gone: false, listeners: new Set() };
  let store;
  return {
    initialize({ model }) {
      store = new LogStore((message) => model.send(message));
      const hear = () => (heard.at = Date.now() / 1000);
      const synchronise = () => {
        hear();
        heard.offset = (model.get('view')?.now ?? heard.at) - heard.at;
      };
      synchronise();
      watchKernel(model, () => {
        heard.gone = true;
        heard.listeners.forEach((listener) => listener());
      });
      store.open(model.get('log') ?? {});
      model.on('change:view', synchronise);
      model.on('change:log', () => store.open(model.get('log') ?? {}));
      model.on('msg:custom', (message) => {
        hear();
        store.message(message);
      });
    },
    render({ model, el: node, signal }) {
      const panel = new Panel(model, store, heard, node, signal);
      const outputs = () => drawOutputs(panel.outputs, model.get('outputs') ?? []);
      model.on('change:view', () => panel.draw());
      model.on('change:outputs', outputs);
      panel.draw();
      outputs();
    },
  };
};
