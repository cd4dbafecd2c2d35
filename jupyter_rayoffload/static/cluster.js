// The panel of a cluster: state, what is in use, and what can be done; asks before it does what ends jobs.
import { button, el, icon, safeUrl, sentence, stateMark } from './dom.js';

function meter({ name, share, text }) {
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

function draw(model, node, asking, ask) {
  const view = model.get('view');
  const now = () => Date.now() / 1000;
  const times = []; // drawn anew with the next state, often enough for hours and minutes
  const act = (action) => model.send({ do: action.do });
  const actions = view.actions.map((action) => {
    const attributes = { class: 'jp-RayOffload-button', target: '_blank', rel: 'noopener noreferrer' };
    if (action.href) {
      const href = safeUrl(action.href);
      return href && el('a', { ...attributes, href, title: action.label, 'aria-label': action.label }, icon(action.icon));
    }
    return button(action.icon, action.label, () => (action.confirm ? ask(action) : act(action)), { text: action.text });
  });
  const head = [
    stateMark(view.state, view.word),
    el('span', { class: 'jp-RayOffload-name' }, view.name),
    el('span', { class: 'jp-RayOffload-actions' }, ...actions),
  ];
  const lines = view.lines.map((line) =>
    el('p', { class: 'jp-RayOffload-under jp-RayOffload-quiet' }, sentence(line, now, times)),
  );
  const question = asking && [
    el('p', { class: 'jp-RayOffload-under' }, asking.confirm.question),
    el(
      'div',
      { class: 'jp-RayOffload-buttons jp-RayOffload-under', role: 'group', 'aria-label': asking.confirm.question },
      button('close', asking.confirm.keep, () => ask(null), { text: true, 'data-keep': true }),
      button(asking.icon, asking.label, () => {
        act(asking);
        ask(null);
      }, { text: true }),
    ),
  ];
  node.replaceChildren(
    el(
      'section',
      { class: 'jp-RayOffload jp-RayOffload-panel jp-RayOffload-cluster', role: 'group', 'aria-label': view.group },
      el('span', { class: 'jp-RayOffload-sr', role: 'status' }, view.status),
      el('div', { class: 'jp-RayOffload-row' }, ...head),
      view.meters.length ? el('dl', { class: 'jp-RayOffload-meters' }, ...view.meters.map(meter)) : null,
      ...lines,
      ...(question || []),
    ),
  );
}

export default {
  render({ model, el: node }) {
    let asking = null;
    const show = () => draw(model, node, asking, ask);
    const ask = (action) => {
      asking = action;
      show();
      if (action) node.querySelector('[data-keep]').focus(); // the safe answer first
    };
    model.on('change:view', show);
    show();
  },
};
