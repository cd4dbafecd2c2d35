import { LabIcon } from '@jupyterlab/ui-components';

import { LAB_ICONS } from '#panel/icons.js';

/** A notebook and the three machines that it sends work to. */
export const rayIcon = new LabIcon({ name: 'jupyter-rayoffload:ray', svgstr: LAB_ICONS.ray });
