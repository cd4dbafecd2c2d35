// Elements, icons, marked sentences, terminal colours and running times: what all panels draw with.
// Plain modules without a build; panel.py joins them, the JupyterLab extension imports them.
import { ICONS } from './icons.js';

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] `class`, `on<event>`, or attributes; null and false leave one out
 * @param {...(Node | string | null | undefined)} children
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** One of our own drawings, 16 px, in the colour of the text around it. */
export function icon(name, extra = '') {
  const holder = document.createElement('template');
  holder.innerHTML = ICONS[name] ?? '';
  const svg = holder.content.firstElementChild;
  svg.setAttribute('class', `jp-RayOffload-icon ${extra}`.trim());
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('focusable', 'false');
  return svg;
}

/** A state: icon and word; only the icon takes the colour. */
export function stateMark(state, word) {
  return el('span', { class: `jp-RayOffload-state jp-mod-${state}` }, icon(`state-${state}`), el('span', {}, word));
}

/** A button of 24 px: with its label, or with the icon alone and the label as its name. */
export function button(iconName, label, onclick, options = {}) {
  const { text, ...attributes } = options;
  const name = text ? {} : { title: label, 'aria-label': label };
  return el(
    'button',
    { type: 'button', class: `jp-RayOffload-button${text ? ' jp-mod-text' : ''}`, ...name, ...attributes, onclick },
    icon(iconName),
    text ? el('span', { class: 'jp-RayOffload-label' }, label) : null,
  );
}

/** Put `{n}` and the like into a text of the kernel; numbers get their thousands. */
export function fill(text, numbers) {
  return text.replace(/\{(\w+)\}/g, (_, key) => numbers[key].toLocaleString('en-US'));
}

const two = (n) => String(n).padStart(2, '0');

/** A running time, in whole seconds: words.duration_text has the same units. */
export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** The time of day where the reader is. */
export function clock(seconds) {
  const at = new Date(seconds * 1000);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(':');
}

/** Text that counts: `times` is the list of such nodes that the owner refreshes every second. */
export function running(begin, clockNow, times) {
  const node = el('time', {}, duration(clockNow() - begin));
  times.push(() => (node.textContent = duration(clockNow() - begin)));
  return node;
}

/**
 * A sentence of the kernel: names in backticks become code, `{at:}` a clock time, `{since:}` a running one.
 * @param {string} text
 * @param {() => number} clockNow the kernel's time, seconds
 * @param {Array<() => void>} times
 */
export function sentence(text, clockNow, times) {
  const out = document.createDocumentFragment();
  let end = 0;
  for (const match of text.matchAll(/`([^`\n]+)`|\{(at|since):(\d+(?:\.\d+)?)\}/g)) {
    out.append(text.slice(end, match.index));
    if (match[1] !== undefined) out.append(el('code', {}, match[1]));
    else if (match[2] === 'at') out.append(clock(Number(match[3])));
    else out.append(running(Number(match[3]), clockNow, times));
    end = match.index + match[0].length;
  }
  out.append(text.slice(end));
  return out;
}

/** Copy a text; where the page may not use the clipboard, by a selection. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el('textarea', { style: 'position: fixed; opacity: 0' });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
}

/** Only addresses of the web, or of this server, are opened. */
export function safeUrl(address) {
  try {
    const url = new URL(address, document.baseURI);
    return ['http:', 'https:'].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

// ---------------------------------------------------------------------- terminal colours

const COLOURS = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white'];

/** Colour by its SGR parameters: [class name, inline value]. */
function colour(code, ground, bold) {
  const n = code.split(';').map(Number);
  if (n.length === 5) return [null, `rgb(${n[2]}, ${n[3]}, ${n[4]})`];
  if (n.length === 3 && n[2] >= 16) return [null, of256(n[2])];
  const index = n.length === 3 ? n[2] : n[0] >= 90 ? (n[0] % 10) + 8 : n[0] % 10;
  const intense = index >= 8 || (bold && ground === 'fg');
  return [`ansi-${COLOURS[index % 8]}${intense ? '-intense' : ''}-${ground}`, null];
}

function of256(n) {
  if (n >= 232) return `rgb(${Array(3).fill(8 + 10 * (n - 232)).join(', ')})`;
  const level = (d) => [0, 95, 135, 175, 215, 255][Math.floor((n - 16) / d) % 6];
  return `rgb(${level(36)}, ${level(6)}, ${level(1)})`;
}

/** Class and inline style of one SGR sequence, as the kernel writes them: always from the default style. */
function look(parameters) {
  const style = { classes: [], css: '' };
  const flags = new Set();
  const colours = {};
  const codes = parameters.split(';');
  while (codes.length) {
    const code = codes.shift();
    if (code === '38' || code === '48') {
      const rest = codes.splice(0, codes[0] === '5' ? 2 : 4);
      colours[code === '38' ? 'fg' : 'bg'] = [code, ...rest].join(';');
    } else if (Number(code) >= 30) {
      colours[/^(3|9)\d$/.test(code) ? 'fg' : 'bg'] = code;
    } else flags.add(code);
  }
  if (flags.has('1')) style.classes.push('ansi-bold');
  if (flags.has('3')) style.css += 'font-style: italic; ';
  if (flags.has('4')) style.classes.push('ansi-underline');
  const swapped = flags.has('7');
  for (const ground of ['fg', 'bg']) {
    const shown = swapped === (ground === 'bg') ? 'fg' : 'bg';
    if (colours[ground] === undefined) {
      if (swapped) style.classes.push(`ansi-default-inverse-${shown}`);
      continue;
    }
    const [name, value] = colour(colours[ground], shown, flags.has('1'));
    if (name) style.classes.push(name);
    else style.css += `${shown === 'fg' ? 'color' : 'background-color'}: ${value}; `;
  }
  return style;
}

/** Pieces of a line: text, and the SGR parameters that it stands under. */
export function pieces(line) {
  const out = [];
  let style = '';
  let end = 0;
  const add = (text) => text && out.push({ text, style });
  for (const match of line.matchAll(/\x1b\[([\d;]*)m/g)) {
    add(line.slice(end, match.index));
    style = match[1] === '0' || match[1] === '' ? '' : match[1];
    end = match.index + match[0].length;
  }
  add(line.slice(end));
  return out;
}

/** The text of a line without its colours. */
export const plainLine = (line) => (line.includes('\x1b') ? line.replace(/\x1b\[[\d;]*m/g, '') : line);

/**
 * Draw a line with JupyterLab's classes for terminal colours.
 * @param {string} line
 * @param {Array<[number, number]>} [marks] ranges of its plain text to mark
 * @param {boolean} [current] whether these are the current match
 */
export function lineNodes(line, marks = [], current = false) {
  const out = document.createDocumentFragment();
  let at = 0;
  for (const { text, style } of pieces(line)) {
    const nodes = marked(text, at, marks, current);
    at += text.length;
    if (!style) {
      out.append(...nodes);
      continue;
    }
    const { classes, css } = look(style);
    out.append(el('span', { class: classes.join(' ') || null, style: css || null }, ...nodes));
  }
  return out;
}

function marked(text, offset, marks, current) {
  const out = [];
  let end = 0;
  for (const [from, to] of marks) {
    const [a, b] = [Math.max(from - offset, end), Math.min(to - offset, text.length)];
    if (a >= b) continue;
    out.push(text.slice(end, a), el('mark', { 'aria-current': current ? 'true' : null }, text.slice(a, b)));
    end = b;
  }
  out.push(text.slice(end));
  return out.filter((piece) => piece !== '');
}
