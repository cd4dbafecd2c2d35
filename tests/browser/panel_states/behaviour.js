// Runs in the page of render.py, as a person would use the panels; what it saw is read by test_panel_states.py.
const seen = {};
const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
// Scroll and resize are told with frames, not with the clock.
const tick = async (ms = 60) => {
  await new Promise((resolve) => setTimeout(resolve, ms));
  await frame();
  await frame();
};
const at = (caption) => window.models.find((entry) => entry.caption.startsWith(caption));
const named = (node, name) => node.querySelector(`[aria-label="${name}"]`);
const withText = (node, text) => [...node.querySelectorAll('button')].find((b) => b.textContent.trim() === text);
const port = (node) => node.querySelector('[role=log]');
const press = (node, key, more = {}) =>
  node.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true, ...more }));

async function run() {
  seen.text = Object.fromEntries(window.models.map(({ caption, node }) => [caption, node.innerText]));
  seen.title = document.title;
  seen.scripts = document.querySelectorAll('.jp-RayOffload-outputs script, .jp-RayOffload-outputs style').length;
  seen.handlers = document.querySelectorAll('.jp-RayOffload-outputs [onerror]').length;
  seen.tables = document.querySelectorAll('.jp-RayOffload-outputs table').length;
  seen.nameless = [...document.querySelectorAll('.jp-RayOffload button, .jp-RayOffload a')]
    .filter((control) => !(control.getAttribute('aria-label') || control.textContent.trim())).length;
  seen.groups = [...document.querySelectorAll('.jp-RayOffload-panel')].map((p) => p.getAttribute('aria-label'));

  // A running job: the log follows, until the reader scrolls up; End takes it again.
  const { model, node } = at('4 ');
  const log = port(node);
  const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 2;
  const delta = (seq, lines, total, changed = total - lines.length) =>
    model.emit('msg:custom', { log: { seq, changed, first: total - lines.length, lines, total } });
  const total = model.state.log.total;
  seen.followsAtFirst = atEnd();
  const cancel = withText(node, 'Cancel');
  delta(model.state.log.seq + 1, ['one more'], total + 1);
  await tick();
  seen.lastLine = [...node.querySelectorAll('.jp-RayOffload-line')].at(-1).textContent;
  seen.follows = atEnd();
  seen.sameButton = cancel === withText(node, 'Cancel');
  log.scrollTop = 100;
  await tick();
  seen.released = named(node, 'Follow new lines').getAttribute('aria-pressed');
  delta(model.state.log.seq + 2, ['and more'], total + 2);
  await tick();
  seen.stays = Math.abs(log.scrollTop - 100) < 2;
  seen.old = model.emit('msg:custom', { log: { seq: 0, changed: 0, first: 0, lines: ['old'], total: 1 } }) ?? null;
  press(log, 'End');
  await tick();
  seen.again = atEnd() && named(node, 'Follow new lines').getAttribute('aria-pressed');
  seen.count = node.querySelector('.jp-RayOffload-logbar .jp-RayOffload-quiet').textContent;

  // Search, in what the page has.
  named(node, 'Search the log').click();
  const input = node.querySelector('input[type=search]');
  seen.searchFocused = document.activeElement === input;
  const find = async (text) => {
    input.value = text;
    input.dispatchEvent(new Event('input'));
    await tick(300);
    return node.querySelector('.jp-RayOffload-logbar [role=status]').textContent;
  };
  seen.found = await find('BEST');
  named(node, 'Next match').click();
  await tick();
  seen.next = node.querySelector('.jp-RayOffload-logbar [role=status]').textContent;
  seen.current = node.querySelector('mark[aria-current]').textContent;
  seen.none = await find('nowhere');
  named(node, 'Match case').click();
  seen.cased = await find('BEST');
  named(node, 'Match case').click();
  press(input, 'Escape');
  seen.searchClosed = !node.querySelector('input[type=search]') && !node.querySelector('mark');

  // A million lines.
  press(log, 'End');
  const lines = (first, last) => Array.from({ length: last - first }, (_, i) => `line ${first + i}`);
  const seq = model.state.log.seq + 10;
  model.emit('msg:custom', {
    log: { seq, changed: 0, first: 998000, lines: lines(998000, 1e6), total: 1e6 },
  });
  await tick();
  seen.rows = node.querySelectorAll('.jp-RayOffload-line').length;
  seen.millionEnd = atEnd() && [...node.querySelectorAll('.jp-RayOffload-line')].at(-1).textContent;
  window.sent.length = 0;
  const answer = () => {
    for (const { want } of window.sent.splice(0).filter((message) => message.want)) {
      model.emit('msg:custom', { got: { first: want[0], lines: lines(...want) } });
    }
  };
  log.scrollTop = log.scrollHeight / 2;
  await tick();
  seen.wanted = window.sent.find((message) => message.want)?.want;
  answer();
  await tick();
  const inSight = () => {
    const box = log.getBoundingClientRect();
    const row = document.elementFromPoint(box.left + 30, box.top + box.height / 2).closest('.jp-RayOffload-line');
    return row?.textContent;
  };
  node.scrollIntoView();
  seen.middle = inSight();
  const steps = [];
  for (let i = 0; i < 30; i++) {
    log.scrollTop += 150; // by the wheel: no line may be left out
    await tick(20);
    answer();
    await tick(20);
    steps.push(Number(inSight().split(' ')[1]));
  }
  seen.steps = steps;
  press(log, 'Home');
  await tick();
  answer();
  await tick();
  seen.home = node.querySelector('.jp-RayOffload-line').textContent;
  named(node, 'Search the log').click();
  window.sent.length = 0;
  node.querySelector('input[type=search]').value = 'line 77777';
  node.querySelector('input[type=search]').dispatchEvent(new Event('input'));
  await tick(300);
  const asked = window.sent.find((message) => message.find)?.find;
  seen.asked = { ...asked, id: typeof asked.id };
  model.emit('msg:custom', { found: { id: asked.id, lines: [77777, 777770], count: 11 } });
  await tick();
  answer();
  await tick();
  seen.firstHit = node.querySelector('mark[aria-current]')?.closest('.jp-RayOffload-line').textContent;
  named(node, 'Previous match').click();
  await tick();
  answer();
  await tick();
  seen.hit = node.querySelector('mark[aria-current]')?.closest('.jp-RayOffload-line').textContent;
  seen.hits = node.querySelector('.jp-RayOffload-logbar [role=status]').textContent;
  // News of the job, and its end, leave what is being typed alone.
  const typing = node.querySelector('input[type=search]');
  const running = model.state.view;
  const news = async (view) => {
    typing.value += '0';
    model.state = { ...model.state, view: JSON.parse(JSON.stringify(view)) };
    model.emit('change:view');
    await tick();
    return document.activeElement === typing && typing.value;
  };
  typing.focus();
  seen.typed = [await news(running), await news({ ...running, ended: true }), await news(running)];
  press(typing, 'Escape');

  // Intents, focus, and the end of the job.
  window.sent.length = 0;
  cancel.focus();
  cancel.click();
  seen.intent = [...window.sent];
  seen.asking = [cancel.disabled, cancel.title];
  const rerun = withText(at('9 ').node, 'Rerun with 64 GiB');
  window.sent = [];
  rerun.click();
  seen.remedy = [...window.sent];
  const close = at('2 ');
  withText(close.node, 'Cancel').focus();
  close.model.state = { ...close.model.state, view: at('6 ').model.state.view };
  close.model.emit('change:view');
  await tick();
  seen.focus = document.activeElement.localName;
  seen.said = close.node.querySelector('[role=status]').textContent;

  // The kernel goes.
  const lost = at('3 ');
  lost.node.classList.add('jupyter-widgets-disconnected');
  await tick();
  seen.gone = lost.node.innerText;
  seen.goneButtons = [...lost.node.querySelectorAll('button')]
    .filter((b) => b.offsetParent)
    .map((b) => b.textContent.trim());
  const ended = at('10');
  ended.node.classList.add('jupyter-widgets-disconnected');
  await tick();
  seen.endedGone = [...ended.node.querySelectorAll('header button')].map((b) => b.title || b.textContent);

  // A cluster asks before it does what ends jobs, the safe answer first.
  const cluster = window.models.at(-1);
  named(cluster.node, 'Delete').click();
  seen.question = cluster.node.innerText.includes('Delete cluster default?');
  seen.safe = document.activeElement.textContent;
  seen.notYet = window.sent.some((message) => message.do === 'delete');
  withText(cluster.node, 'Delete').click();
  seen.deleted = window.sent.at(-1);

  document.querySelector('main').style.width = '420px';
  await tick();
  seen.wide = [...document.querySelectorAll('.jp-RayOffload-panel')]
    .filter((panel) => panel.scrollWidth > panel.clientWidth + 1).length;
}

const done = arguments[arguments.length - 1];
const wait = setInterval(() => {
  if (!document.body.dataset.ready) return;
  clearInterval(wait);
  run()
    .catch((error) => (seen.error = String(error.stack)))
    .then(() => done(JSON.stringify(seen)));
}, 50);
