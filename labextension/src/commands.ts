import type { JupyterFrontEnd } from '@jupyterlab/application';
import { InputDialog } from '@jupyterlab/apputils';
import type { CodeCell } from '@jupyterlab/cells';
import type { IDocumentManager } from '@jupyterlab/docmanager';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { copyText, el } from '#panel/dom.js';

import { canBeJob, cellOf, jobOf, runBelow, runOnRay } from './cells';
import { confirm, tell } from './dialogs';
import { rayIcon } from './icons';
import { CommandIDs } from './ids';
import type { Model } from './model';
import { Pointed } from './pointed';
import type { Cluster, JobSummary } from './tokens';

/** What the commands work with. */
export interface Parts {
  app: JupyterFrontEnd;
  model: Model;
  trans: TranslationBundle;
  notebooks: INotebookTracker | null;
  documents: IDocumentManager | null;
  /** Words of `%%ray_job`'s line for cells that are run by a button. */
  line: () => string;
}

const ID = { type: 'object', properties: { id: { type: 'string', description: 'Id of the job' } } };
const NAME = {
  type: 'object',
  properties: { name: { type: 'string', description: 'Name of the cluster' } }
};

/** Add all commands. */
export function addCommands(parts: Parts): void {
  const pointed = new Pointed(parts.app);
  addJobCommands(parts, pointed);
  addClusterCommands(parts, pointed);
  addCellCommands(parts, pointed);
}

// -------------------------------------------------------------------- jobs

function addJobCommands(
  { app, model, trans, notebooks, documents }: Parts,
  pointed: Pointed
): void {
  const { commands } = app;
  /** The job that is meant: named, pointed at in the list, of the active cell, or the newest one. */
  const meant = (
    args: ReadonlyPartialJSONObject,
    accept: (job: JobSummary) => boolean = () => true
  ) => {
    if (typeof args.id === 'string')
      return model.job(args.id) ?? ({ id: args.id, name: args.id } as JobSummary);
    const row = pointed.in('.jp-RayOffload-jobs > [data-id]');
    const cell = notebooks?.activeCell ?? null;
    const named = row?.dataset.id ?? (cell ? jobOf(cell)?.job : undefined);
    const job = named ? model.job(named) : undefined;
    return job && accept(job) ? job : row ? undefined : model.jobs.find(accept);
  };
  const add = (
    id: string,
    label: string,
    accept: (job: JobSummary) => boolean,
    act: (job: JobSummary, args: ReadonlyPartialJSONObject) => Promise<unknown>
  ) =>
    commands.addCommand(id, {
      label,
      describedBy: { args: ID },
      isEnabled: args => meant(args, accept) !== undefined,
      execute: async args => {
        const job = meant(args, accept);
        if (!job) return false;
        try {
          return (await act(job, args)) ?? true;
        } catch (error) {
          await tell(trans.__('Job %1: this could not be done', job.name), error);
          return false;
        }
      }
    });
  const live = (job: JobSummary) => !job.ended;
  const ended = (job: JobSummary) => job.ended;

  add(CommandIDs.cancel, trans.__('Cancel job'), live, async job => {
    await model.api.stop(job.id);
    await model.refresh();
  });
  add(CommandIDs.rerun, trans.__('Rerun job'), ended, async (job, args) => {
    const again = await model.api.rerun(job.id, (args.changes as object | undefined) ?? {});
    await model.refresh();
    await commands.execute(CommandIDs.openJob, { id: again.spec.id });
  });
  add(CommandIDs.deleteJob, trans.__('Delete job…'), ended, async job => {
    const title = trans.__('Delete job %1?', job.name);
    const lost = trans.__(
      'Its record, its log and its results go from the store. What stands in notebooks stays.'
    );
    if (!(await confirm(title, [[lost]], trans.__('Delete job'), trans))) return false;
    await model.api.forget(job.id);
    await model.refresh();
    return true;
  });
  add(
    CommandIDs.copyId,
    trans.__('Copy job id'),
    () => true,
    job => copyText(job.id)
  );
  add(
    CommandIDs.attach,
    trans.__('Attach job to this notebook'),
    () => true,
    async job => {
      const panel = notebooks?.currentWidget;
      if (!panel) {
        throw new Error(
          trans.__(
            'No notebook is open. Open the one that is to have the results, then attach the job again'
          )
        );
      }
      app.shell.activateById(panel.id);
      await runBelow(panel, `%ray attach ${job.id}`);
    }
  );
  add(
    CommandIDs.openCell,
    trans.__('Go to the cell of the job'),
    () => true,
    async job => {
      const show = (panel: NotebookPanel): boolean => {
        const cell = cellOf(panel.content, job.id);
        if (!cell) return false;
        app.shell.activateById(panel.id);
        panel.content.activeCellIndex = panel.content.widgets.indexOf(cell);
        void panel.content.scrollToCell(cell);
        return true;
      };
      let found = false;
      notebooks?.forEach(panel => (found ||= show(panel)));
      if (found) return;
      const known = model.job(job.id) ?? job;
      const panel = documents?.openOrReveal(known.notebook) as NotebookPanel | undefined;
      if (!panel)
        throw new Error(trans.__('%1 is not in this folder: open it first', known.notebook));
      await panel.context.ready;
      show(panel);
    }
  );
  commands.addCommand(CommandIDs.refresh, {
    label: trans.__('Refresh clusters and jobs'),
    describedBy: { args: { type: 'object', properties: {} } },
    execute: () => model.refresh()
  });
}

// -------------------------------------------------------------------- clusters

function addClusterCommands({ app, model, trans }: Parts, pointed: Pointed): void {
  const { commands } = app;
  /** The cluster that is meant: named, pointed at in the list, or the one that cells go to. */
  const meant = (args: ReadonlyPartialJSONObject): Cluster | undefined => {
    const card = pointed.in('.jp-RayOffload-clusterItem');
    const name = typeof args.name === 'string' ? args.name : card?.dataset.name;
    return name === undefined
      ? model.cluster
      : model.clusters.find(cluster => cluster.name === name);
  };
  const can = (cluster: Cluster | undefined, verb: string) =>
    Boolean(
      cluster && model.health === 'well' && cluster.view.actions.some(action => action.do === verb)
    );
  /** Whoever calls from a panel shows what could not be done itself. */
  const attempt = async (
    args: ReadonlyPartialJSONObject,
    name: string,
    act: () => Promise<unknown>
  ) => {
    try {
      await act();
      await model.refresh().catch(() => undefined);
    } catch (error) {
      if (args.told) throw error;
      await tell(trans.__('Cluster %1: this could not be done', name), error);
    }
  };
  const lost = (cluster: Cluster) =>
    model.jobs.filter(job => !job.ended && (job.cluster || 'default') === cluster.name);

  commands.addCommand(CommandIDs.start, {
    label: trans.__('Start cluster'),
    describedBy: { args: NAME },
    isEnabled: args => {
      const cluster = meant(args);
      if (!cluster) return typeof args.name === 'string' && model.health === 'well'; // a further one
      return can(cluster, 'start') || cluster.phase === 'none';
    },
    execute: args => {
      const name = typeof args.name === 'string' ? args.name : 'default';
      return attempt(args, name, () => model.api.start(name, args.options as object));
    }
  });
  commands.addCommand(CommandIDs.resume, {
    label: trans.__('Resume cluster'),
    describedBy: { args: NAME },
    isEnabled: args => can(meant(args), 'resume'),
    execute: args => attempt(args, meant(args)!.name, () => model.api.resume(meant(args)!.name))
  });
  commands.addCommand(CommandIDs.scale, {
    label: trans.__('Scale cluster…'),
    describedBy: { args: NAME },
    isEnabled: args => Boolean(meant(args)?.view.workers),
    execute: async args => {
      const cluster = meant(args);
      if (!cluster) return;
      let workers = (args.options as { workers?: number } | undefined)?.workers;
      if (workers === undefined) {
        const title = trans.__('Workers of cluster %1', cluster.name);
        const asked = await InputDialog.getNumber({
          title,
          value: cluster.view.workers?.count,
          okLabel: trans.__('Scale')
        });
        if (!asked.button.accept || asked.value === null) return;
        workers = Math.max(0, Math.round(asked.value));
      }
      await attempt(args, cluster.name, () => model.api.scale(cluster.name, workers));
    }
  });
  const ending = (
    id: string,
    verb: 'suspend' | 'delete',
    label: string,
    said: { title: (name: string) => string; accept: string; kept: string; instead?: string },
    act: (name: string) => Promise<unknown>
  ) =>
    commands.addCommand(id, {
      label,
      describedBy: { args: NAME },
      isEnabled: args => can(meant(args), verb),
      execute: async args => {
        const cluster = meant(args);
        if (!cluster) return;
        await model.refresh().catch(() => undefined); // the jobs that are named are those that run now
        const jobs = lost(cluster);
        const names = jobs.slice(0, 5).flatMap((job, i) => [i ? ', ' : '', el('b', {}, job.name)]);
        const first = jobs.length
          ? [
              trans._n(
                '%1 running job will be lost: ',
                '%1 running jobs will be lost: ',
                jobs.length
              ),
              ...names
            ]
          : [trans.__('No job runs on it')];
        const title = said.title(cluster.name);
        const paragraphs = [first, [said.kept]];
        if (said.instead && can(cluster, 'suspend')) paragraphs.push([said.instead]);
        if (!(await confirm(title, paragraphs, said.accept, trans))) return;
        await attempt(args, cluster.name, () => act(cluster.name));
      }
    });
  ending(
    CommandIDs.suspend,
    'suspend',
    trans.__('Suspend cluster…'),
    {
      title: name => trans.__('Suspend cluster %1?', name),
      accept: trans.__('Suspend cluster'),
      kept: trans.__(
        'Its settings are kept, and the next cell wakes it. Records, logs and results of jobs that have ended are kept.'
      )
    },
    name => model.api.suspend(name)
  );
  ending(
    CommandIDs.deleteCluster,
    'delete',
    trans.__('Delete cluster…'),
    {
      title: name => trans.__('Delete cluster %1?', name),
      accept: trans.__('Delete cluster'),
      kept: trans.__('Records, logs and results of jobs that have ended are kept.'),
      instead: trans.__('Suspend it instead to free what it holds and keep its settings.')
    },
    name => model.api.delete(name)
  );
  commands.addCommand(CommandIDs.dashboard, {
    label: trans.__('Open Ray dashboard'),
    describedBy: { args: NAME },
    isEnabled: args => Boolean(meant(args)?.dashboard),
    execute: args => void window.open(meant(args)!.dashboard, '_blank', 'noopener')
  });
}

// -------------------------------------------------------------------- cells

function addCellCommands({ app, model, trans, notebooks, line }: Parts, pointed: Pointed): void {
  const { commands } = app;
  const why = (cells: CodeCell[]): string => {
    const kernel = notebooks?.currentWidget?.sessionContext;
    if (!cells.length) return trans.__('this is no cell of code');
    if (!cells.some(cell => canBeJob(cell.model.sharedModel.getSource()))) {
      return trans.__('an empty cell, or another magic of a whole cell');
    }
    if (!kernel?.session?.kernel) return trans.__('the notebook has no kernel');
    if (model.health === 'away') return trans.__('the server does not answer');
    return '';
  };
  /** The cell that is meant: pointed at, which does not make it the active one, or that. */
  const active = (): CodeCell[] => {
    const node = pointed.in('.jp-Notebook .jp-Cell');
    const cells = notebooks?.currentWidget?.content.widgets ?? [];
    const cell = cells.find(cell => cell.node === node) ?? notebooks?.activeCell;
    return cell?.model.type === 'code' ? [cell as CodeCell] : [];
  };
  const selected = (): CodeCell[] => {
    const notebook = notebooks?.currentWidget?.content;
    const cells = notebook?.widgets.filter(cell => notebook.isSelectedOrActive(cell)) ?? [];
    return cells.filter((cell): cell is CodeCell => cell.model.type === 'code');
  };
  const add = (id: string, label: string, cells: () => CodeCell[]) =>
    commands.addCommand(id, {
      label,
      icon: rayIcon,
      caption: () => [label, why(cells())].filter(Boolean).join(': '),
      describedBy: { args: { type: 'object', properties: {} } },
      isEnabled: () => why(cells()) === '',
      execute: async () => {
        const panel = notebooks?.currentWidget;
        if (!panel) return;
        try {
          // In order: one that needs another's results waits for them as a job does.
          for (const cell of cells()) await runOnRay(panel, cell, line());
        } catch (error) {
          await tell(trans.__('The cell cannot be run on Ray'), error);
        }
      }
    });
  add(CommandIDs.runCell, trans.__('Run cell on Ray'), active);
  add(CommandIDs.runSelected, trans.__('Run selected cells on Ray'), selected);
  const changed = () => {
    commands.notifyCommandChanged(CommandIDs.runCell);
    commands.notifyCommandChanged(CommandIDs.runSelected);
  };
  notebooks?.activeCellChanged.connect(changed);
  notebooks?.selectionChanged.connect(changed);
  notebooks?.currentChanged.connect((_, panel) => {
    changed();
    panel?.sessionContext.kernelChanged.connect(changed);
  });
  model.changed.connect(() => commands.notifyCommandChanged());
}
