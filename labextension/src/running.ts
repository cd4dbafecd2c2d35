import type { IRunningSessions } from '@jupyterlab/running';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';

import { rayIcon } from './icons';
import { CommandIDs } from './ids';
import type { Model } from './model';

/** Jobs that have not ended, for JupyterLab's panel of what runs. */
export function runningJobs(
  model: Model,
  commands: CommandRegistry,
  trans: TranslationBundle
): IRunningSessions.IManager {
  const live = () => model.jobs.filter(job => !job.ended);
  return {
    name: trans.__('Ray jobs'),
    running: () =>
      live().map(job => ({
        label: () => job.name,
        labelTitle: () => [job.word, job.notebook].filter(Boolean).join(' · '),
        detail: () => job.word,
        icon: () => rayIcon,
        open: () => void commands.execute(CommandIDs.openJob, { id: job.id }),
        shutdown: () => void commands.execute(CommandIDs.cancel, { id: job.id })
      })),
    shutdownAll: () => {
      for (const job of live()) void model.api.stop(job.id).catch(() => undefined);
      void model.refresh().catch(() => undefined);
    },
    refreshRunning: () => void model.refresh().catch(() => undefined),
    runningChanged: model.changed,
    shutdownLabel: trans.__('Cancel'),
    shutdownAllLabel: trans.__('Cancel All'),
    shutdownAllConfirmationText: trans.__(
      'Cancel all jobs that have not ended? Nothing of them lands in a notebook.'
    )
  };
}
