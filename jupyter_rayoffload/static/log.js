// The log: all its lines may be asked for, only a window of them is in the page.
import { button, copyText, el, fill, icon, lineNodes, plainLine } from './dom.js';

const CHUNK = 500; // lines that are asked for at once
const HELD = 400; // chunks that are held: 200,000 lines
const AROUND = 80; // lines drawn above and below those in sight
const TALLEST = 8e6; // px; browsers end an element somewhere beyond 16 million

/** The lines of a log as far as this page has them; knows how to ask the kernel for the others. */
export class LogStore {
  /** @param {(message: object) => void} send */
  constructor(send) {
    this.send = send;
    this.total = 0;
    this.seq = -1;
    this.listeners = new Set();
    /** @type {Map<number, string[]>} sparse arrays by number of chunk */
    this.chunks = new Map();
    this.asked = new Map();
    this.searches = new Map();
  }

  /** Take in the kernel's newest lines, made when this page was opened. */
  open({ seq, first, lines, total }) {
    if (seq === undefined || seq < this.seq) return;
    this.chunks.clear();
    this.take({ seq, changed: 0, first, lines, total });
  }

  /** Take in a message of the kernel; what the snapshot already had is left out. */
  message({ log, got, found }) {
    if (log && log.seq > this.seq) this.take(log);
    if (got) {
      this.asked.clear();
      this.put(got.first, got.lines);
      this.tell(this.total); // to be drawn; the log is what it was, and so is what a search has found
    }
    if (found) {
      this.searches.get(found.id)?.(found);
      this.searches.delete(found.id);
    }
  }

  take({ seq, changed, first, lines, total }) {
    this.seq = seq;
    this.forget(changed);
    this.total = total;
    this.put(first, lines);
    this.tell(changed);
  }

  tell(changed) {
    for (const listener of this.listeners) listener(changed);
  }

  /** Drop all lines from `first` on. */
  forget(first) {
    for (const [number, chunk] of this.chunks) {
      if (number * CHUNK >= first) this.chunks.delete(number);
      else if ((number + 1) * CHUNK > first) chunk.length = Math.min(chunk.length, first - number * CHUNK);
    }
  }

  put(first, lines) {
    for (let i = 0; i < lines.length; i++) {
      const number = Math.floor((first + i) / CHUNK);
      let chunk = this.chunks.get(number);
      if (!chunk) this.chunks.set(number, (chunk = []));
      chunk[(first + i) % CHUNK] = lines[i];
    }
    for (const number of this.chunks.keys()) {
      if (this.chunks.size <= HELD) break;
      this.chunks.delete(number); // the one that came first
    }
  }

  /** A line, or undefined while it is not here. */
  line(i) {
    return this.chunks.get(Math.floor(i / CHUNK))?.[i % CHUNK];
  }

  /** Ask for what is missing between two lines. */
  want(first, last) {
    for (let i = first; i < last; i++) {
      if (this.line(i) !== undefined) continue;
      const number = Math.floor(i / CHUNK);
      const now = Date.now();
      if (now - (this.asked.get(number) ?? 0) > 2000) {
        this.asked.set(number, now);
        this.send({ want: [number * CHUNK, Math.min(this.total, (number + 1) * CHUNK)] });
      }
      i = (number + 1) * CHUNK - 1;
    }
  }

  /** Whether every line is here. */
  get whole() {
    for (let i = 0; i < this.total; i += CHUNK) {
      const chunk = this.chunks.get(i / CHUNK);
      const size = Math.min(CHUNK, this.total - i);
      if (!chunk || chunk.length < size || chunk.slice(0, size).includes(undefined)) return false;
    }
    return true;
  }

  /** Numbers of the held lines that contain a text. */
  search(text, exact) {
    const wanted = exact ? text : text.toLowerCase();
    const out = [];
    for (const number of [...this.chunks.keys()].sort((a, b) => a - b)) {
      this.chunks.get(number).forEach((line, i) => {
        const plain = plainLine(line);
        if ((exact ? plain : plain.toLowerCase()).includes(wanted)) out.push(number * CHUNK + i);
      });
    }
    return out;
  }

  /** Let the kernel search the whole log; a busy one answers later, or never. */
  searchAll(text, exact) {
    const id = crypto.randomUUID?.() ?? String(Math.random());
    this.send({ find: { id, text, case: exact } });
    return new Promise((resolve) => this.searches.set(id, resolve));
  }

  /** Every line, asking for what is missing; gives up on a kernel that stays silent. */
  async all() {
    for (let i = 0; i < this.total; i += CHUNK) {
      for (let tries = 0; tries < 30; tries++) {
        this.want(i, Math.min(this.total, i + CHUNK));
        if (this.line(i) !== undefined) break;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
    return Array.from({ length: this.total }, (_, i) => plainLine(this.line(i) ?? '')).join('\n');
  }
}

/** The log in a panel: bar, search and window. */
export class LogView {
  /**
   * @param {LogStore} store
   * @param {AbortSignal} signal
   */
  constructor(store, signal) {
    this.store = store;
    this.words = {};
    this.live = true;
    this.follow = true;
    this.wrap = true;
    this.first = 0;
    /** @type {Map<number, HTMLElement>} */
    this.rows = new Map();
    this.found = { lines: [], count: 0, at: -1, text: '', exact: false, whole: true };
    this.above = el('div');
    this.below = el('div');
    this.body = el('pre');
    this.port = el('div', { class: 'jp-RenderedText', role: 'log', 'aria-live': 'off', tabindex: '0' });
    this.port.append(this.above, this.body, this.below);
    this.bar = el('div', { class: 'jp-RayOffload-logbar', role: 'toolbar' });
    this.node = el('div', { class: 'jp-RayOffload-log jp-mod-wrap' }, this.bar, this.port);
    this.port.addEventListener('scroll', () => this.scrolled(), { signal, passive: true });
    this.port.addEventListener('keydown', (event) => this.key(event), { signal });
    const listener = (changed) => this.changed(changed);
    store.listeners.add(listener);
    signal.addEventListener('abort', () => store.listeners.delete(listener));
    const resize = new ResizeObserver(() => this.draw());
    resize.observe(this.port);
    signal.addEventListener('abort', () => resize.disconnect());
  }

  /** Draw the bar as the job now is. */
  update({ label, shown, words }, ended) {
    // Each view brings its words anew; a bar that is drawn anew for them would take the reader's search away.
    const others = JSON.stringify(words) !== JSON.stringify(this.words);
    this.words = words;
    if (this.live === ended || others) {
      if (this.open === undefined || (ended && this.live)) this.open = shown;
      this.live = !ended;
      this.port.setAttribute('aria-label', label);
      this.drawBar();
    }
    this.changed(this.store.total);
  }

  drawBar() {
    const w = this.words;
    this.count = el('span', { class: 'jp-RayOffload-quiet' });
    this.bar.setAttribute('aria-label', w.title);
    this.port.hidden = !this.open;
    if (!this.open) {
      const show = button('right', w.show, () => this.toggle(true), { 'aria-expanded': 'false' });
      this.bar.replaceChildren(w.title, this.count, el('span', { class: 'jp-RayOffload-actions' }, show));
      return;
    }
    const pressed = (name, iconName, on) =>
      button(iconName, w[name], () => on(), { 'aria-pressed': String(this[name]) });
    const actions = [
      this.finding ? null : button('search', w.search, () => this.startSearch()),
      this.live ? pressed('follow', 'follow', () => this.setFollow(!this.follow)) : null,
      pressed('wrap', 'wrap', () => this.setWrap(!this.wrap)),
      button('copy', w.copy, async () => copyText(await this.store.all())),
    ];
    const left = this.finding ? this.searching : [el('span', {}, w.title), this.count];
    const { activeElement } = this.bar.getRootNode();
    this.bar.replaceChildren(
      ...left,
      el('span', { class: 'jp-RayOffload-actions' }, ...actions.filter(Boolean)),
    );
    if (this.bar.contains(activeElement)) activeElement.focus({ preventScroll: true });
  }

  toggle(open) {
    this.open = open;
    this.drawBar();
    this.changed(0);
    if (open) this.port.focus();
  }

  setFollow(follow) {
    this.follow = follow;
    this.bar.querySelector(`[title="${this.words.follow}"]`)?.setAttribute('aria-pressed', String(follow));
    if (follow) this.draw();
  }

  setWrap(wrap) {
    this.wrap = wrap;
    this.bar.querySelector(`[title="${this.words.wrap}"]`)?.setAttribute('aria-pressed', String(wrap));
    this.node.classList.toggle('jp-mod-wrap', wrap);
    this.draw();
  }

  // -------------------------------------------------------------------- window

  /** Lines from `first` on are new. */
  changed(first) {
    const { total } = this.store;
    this.node.hidden = !total;
    if (!this.words.lines || !total) return;
    this.count.textContent = fill(total === 1 ? this.words.line : this.words.lines, { n: total });
    if (!this.open) return;
    if (this.finding && first < total) this.searchSoon();
    this.draw();
  }

  get rowHeight() {
    return Math.min(17, TALLEST / Math.max(1, this.store.total));
  }

  /** Draw the window: at the end when following, else around the line at the top. */
  draw() {
    if (!this.open || !this.port.isConnected || !this.port.clientHeight) {
      // Not laid out yet: enough for the first sight.
      if (this.open) this.fillRows(Math.max(0, this.store.total - AROUND), this.store.total);
      return;
    }
    const { total } = this.store;
    if (this.follow) {
      this.fillRows(Math.max(0, total - 2 * AROUND), total);
      this.scrollTo(this.port.scrollHeight);
      return;
    }
    const { line, offset } = this.top();
    this.drawAround(line, offset);
  }

  drawAround(line, offset = 0) {
    const { total } = this.store;
    const first = Math.max(0, Math.min(line, total) - AROUND);
    this.fillRows(first, Math.min(total, first + 3 * AROUND));
    const row = this.rows.get(Math.min(line, total - 1));
    if (row) this.scrollTo(row.offsetTop - this.port.offsetTop - offset);
  }

  /** The line at the top of the window, and how much of it is above. */
  top() {
    const edge = this.port.scrollTop;
    const base = this.port.offsetTop;
    for (const [i, row] of this.rows) {
      const y = row.offsetTop - base;
      if (y + row.offsetHeight > edge) {
        if (y > edge + this.port.clientHeight) break;
        return { line: i, offset: y - edge };
      }
    }
    // The scroll bar was dragged out of what is drawn.
    return { line: Math.min(this.store.total - 1, Math.floor(edge / this.rowHeight)), offset: 0 };
  }

  fillRows(first, last) {
    this.store.want(first, last);
    for (const [i, row] of this.rows) {
      if (i < first || i >= last) {
        row.remove();
        this.rows.delete(i);
      }
    }
    const rows = new Map();
    let before = null;
    for (let i = first; i < last; i++) {
      const row = this.rows.get(i) ?? el('div', { class: 'jp-RayOffload-line' });
      this.fillRow(row, i);
      if (before ? row.previousSibling !== before : this.body.firstChild !== row) {
        if (before) before.after(row);
        else this.body.prepend(row);
      }
      before = row;
      rows.set(i, row);
    }
    this.rows = rows;
    this.above.style.height = `${first * this.rowHeight}px`;
    this.below.style.height = `${(this.store.total - last) * this.rowHeight}px`;
  }

  fillRow(row, i) {
    const line = this.store.line(i) ?? '';
    const { text, exact } = this.found;
    const current = this.finding && this.found.lines[this.found.at] === i;
    const key = `${text ? `${exact}${current}${text}\0` : ''}${line}`;
    if (row.shown === key) return;
    row.shown = key;
    row.dataset.line = i + 1; // only a page of its own shows it
    row.replaceChildren(lineNodes(line, text ? ranges(plainLine(line), text, exact) : [], current));
  }

  scrollTo(y) {
    this.port.scrollTop = y;
    this.expected = this.port.scrollTop;
  }

  scrolled() {
    const y = this.port.scrollTop;
    if (Math.abs(y - (this.expected ?? -1)) < 1) return;
    const up = y < (this.expected ?? 0);
    this.expected = y;
    if (this.follow && up) this.setFollow(false);
    if (this.follow) return;
    const rows = [...this.rows.keys()];
    const [first, last] = [rows[0], rows[rows.length - 1]];
    const base = this.port.offsetTop;
    const top = this.rows.get(first)?.offsetTop - base;
    const bottom = this.rows.get(last)?.offsetTop - base;
    const room = this.port.clientHeight;
    const near = (y < top + room && first > 0) || (y + 2 * room > bottom && last < this.store.total - 1);
    if (near) this.draw();
  }

  key(event) {
    if (event.key === 'End') {
      this.setFollow(true);
    } else if (event.key === 'Home') {
      if (this.follow) this.setFollow(false);
      this.drawAround(0);
      this.scrollTo(0);
    } else if (event.key === 'f' && (event.ctrlKey || event.metaKey)) {
      this.startSearch();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // -------------------------------------------------------------------- search

  startSearch() {
    this.finding = true;
    this.searching = this.searchBar();
    this.drawBar();
    this.input.focus();
  }

  endSearch() {
    this.finding = false;
    this.found = { lines: [], count: 0, at: -1, text: '', exact: this.found.exact, whole: true };
    this.drawBar();
    this.draw();
    this.port.focus();
  }

  searchBar() {
    const w = this.words;
    this.input = el('input', {
      type: 'search',
      'aria-label': w.search,
      value: this.found.text,
      oninput: () => this.searchSoon(),
      onkeydown: (event) => {
        event.stopPropagation(); // the notebook has its own keys
        if (event.key === 'Enter') this.step(event.shiftKey ? -1 : 1);
        if (event.key === 'Escape') this.endSearch();
      },
    });
    const exact = button('case', w.case, () => {
      this.found.exact = !this.found.exact;
      exact.setAttribute('aria-pressed', String(this.found.exact));
      this.search();
    }, { 'aria-pressed': String(this.found.exact) });
    this.hits = el('span', { role: 'status', class: 'jp-RayOffload-quiet' });
    return [
      el('div', { class: 'jp-RayOffload-find' }, icon('search'), this.input, exact),
      this.hits,
      button('up', w.previous, () => this.step(-1)),
      button('down', w.next, () => this.step(1)),
      button('close', w.close, () => this.endSearch()),
    ];
  }

  searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.finding && this.search(), 150);
  }

  async search() {
    const { exact } = this.found;
    const text = this.input.value;
    const fresh = text !== this.found.text || exact !== this.found.last;
    const lines = text ? this.store.search(text, exact) : [];
    const whole = this.store.whole;
    this.show({ lines, count: lines.length, text, whole }, fresh);
    if (!text || whole) return;
    const { lines: all, count } = await this.store.searchAll(text, exact);
    if (this.finding && this.found.text === text && this.found.exact === exact) {
      this.show({ lines: all, count, text, whole: true }, fresh && !lines.length);
    }
  }

  /** Show what was found; a new text goes to its last match, as the newest lines are those in sight. */
  show(found, fresh) {
    const line = this.found.lines[this.found.at];
    Object.assign(this.found, found, { last: this.found.exact });
    const same = this.found.lines.indexOf(line);
    this.found.at = same >= 0 && !fresh ? same : this.found.lines.length - 1;
    if (fresh && this.found.at >= 0) this.goto();
    else this.draw();
    this.sayHits();
  }

  sayHits() {
    const { lines, count, at, text, whole } = this.found;
    const words = whole ? this.words.match : this.words.held;
    this.hits.textContent = !text ? '' : lines.length ? fill(words, { i: at + 1, n: count }) : this.words.none;
  }

  step(by) {
    const { lines, at } = this.found;
    if (!lines.length) return;
    this.found.at = (at + by + lines.length) % lines.length;
    this.goto();
    this.sayHits();
  }

  goto() {
    if (this.follow) this.setFollow(false);
    this.drawAround(this.found.lines[this.found.at], Math.round(this.port.clientHeight / 3));
  }
}

/** Where a text occurs in a line. */
function ranges(line, text, exact) {
  const [where, what] = exact ? [line, text] : [line.toLowerCase(), text.toLowerCase()];
  const out = [];
  for (let i = where.indexOf(what); i >= 0; i = where.indexOf(what, i + what.length)) out.push([i, i + what.length]);
  return out;
}
