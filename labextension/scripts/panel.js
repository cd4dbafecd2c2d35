// Copies the panels' own modules here, with the icons as a module: the same code as under the cell, for the bundler.
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const source = join(here, '../../jupyter_rayoffload/static');
const target = join(here, '../panel');

rmSync(target, { recursive: true, force: true });
mkdirSync(target);
for (const name of readdirSync(source).filter(name => /\.(js|css)$/.test(name))) {
  cpSync(join(source, name), join(target, name));
}
// As panel.py does: in the colour of the text around them instead of JupyterLab's icon classes.
const icons = Object.fromEntries(
  readdirSync(join(source, 'icons'))
    .filter(name => name.endsWith('.svg'))
    .sort()
    .map(name => [name.slice(0, -4), readFileSync(join(source, 'icons', name), 'utf-8')])
);
const plain = svg =>
  svg
    .replaceAll(' class="jp-icon3"', '')
    .replaceAll('#616161', 'currentColor')
    .replace(/\s*\n\s*/g, '');
const drawn = Object.fromEntries(Object.entries(icons).map(([name, svg]) => [name, plain(svg)]));
writeFileSync(
  join(target, 'icons.js'),
  `export const ICONS = ${JSON.stringify(drawn)};\nexport const LAB_ICONS = ${JSON.stringify({ ray: icons.ray })};\n`
);
