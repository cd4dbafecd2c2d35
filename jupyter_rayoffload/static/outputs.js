// What the cell displayed, while the panel is live. Nothing of it may run: a script in an output gets its turn in
// the static record, under the trust that the notebook has.
import { el, lineNodes } from './dom.js';

const IMAGES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'];

// Elements that tables and texts are made of; others give way to what is in them.
const TAGS = new Set(
  `a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr
   i img kbd li mark ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead time tr tt u ul
   var`.split(/\s+/),
);
const DROPPED = 'script, style, link, meta, iframe, object, embed, template, noscript, title, svg, math';
const ATTRIBUTES = new Set(
  'align alt border class colspan dir height href lang open rowspan scope src start style title valign width'.split(' '),
);

const joined = (value) => (Array.isArray(value) ? value.join('') : String(value));

function safe(attribute) {
  const { name, value } = attribute;
  if (!ATTRIBUTES.has(name)) return false;
  if (name === 'href') return /^(https?:|#)/i.test(value.trim());
  if (name === 'src') return /^(https?:|data:image\/)/i.test(value.trim());
  if (name === 'style') return !/url\(|expression|position|@import/i.test(value);
  return true;
}

/** Markup without anything that could run or reach out of its place. */
export function harmless(markup) {
  const page = new DOMParser().parseFromString(markup, 'text/html');
  for (const node of page.body.querySelectorAll(DROPPED)) node.remove();
  for (const node of [...page.body.querySelectorAll('*')]) {
    if (!TAGS.has(node.localName)) {
      node.replaceWith(...node.childNodes);
      continue;
    }
    for (const attribute of [...node.attributes]) if (!safe(attribute)) node.removeAttribute(attribute.name);
    if (node.localName === 'a') {
      node.setAttribute('target', '_blank');
      node.setAttribute('rel', 'noopener noreferrer');
    }
  }
  return page.body;
}

function image(source, alt, width) {
  return el('div', { class: 'jp-RenderedImage' }, el('img', { src: source, alt, width: width ?? null }));
}

/** One bundle, by its richest type that needs no script. */
function output({ data, metadata }) {
  const alt = joined(data['text/plain'] ?? '').slice(0, 200);
  const mime = IMAGES.find((type) => type in data);
  if (mime) return image(`data:${mime};base64,${joined(data[mime]).replace(/\s/g, '')}`, alt, metadata?.[mime]?.width);
  if ('image/svg+xml' in data) {
    return image(`data:image/svg+xml;charset=utf-8,${encodeURIComponent(joined(data['image/svg+xml']))}`, alt);
  }
  if ('text/html' in data) {
    const shown = harmless(joined(data['text/html']));
    if (shown.textContent.trim() || shown.querySelector('img, hr')) {
      return el('div', { class: 'jp-RenderedHTMLCommon jp-RenderedHTML' }, ...shown.childNodes);
    }
  }
  const text = joined(data['text/plain'] ?? data['text/markdown'] ?? data['text/latex'] ?? '');
  const lines = text.split('\n').flatMap((line, i) => [i ? '\n' : '', lineNodes(line)]);
  return el('div', { class: 'jp-RenderedText' }, el('pre', {}, ...lines));
}

/** Draw all outputs anew; they are few, and change seldom. */
export function drawOutputs(node, outputs) {
  node.replaceChildren(...outputs.filter((o) => o?.data).map(output));
  node.hidden = !outputs.length;
}
