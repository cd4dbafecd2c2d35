import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILabShell, ILayoutRestorer } from '@jupyterlab/application';
import { ICommandPalette, IToolbarWidgetRegistry, WidgetTracker } from '@jupyterlab/apputils';
import type { Cell } from '@jupyterlab/cells';
import { IDocumentManager } from '@jupyterlab/docmanager';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { IRunningSessionManagers } from '@jupyterlab/running';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { Token } from '@lumino/coreutils';
import type { Widget } from '@lumino/widgets';
import { Panel } from '@lumino/widgets';

import { Api } from './api';
import { CellButton } from './cellbutton';
import { addCommands } from './commands';
import { Homecoming } from './home';
import { rayIcon } from './icons';
import { CommandIDs } from './ids';
import type { JobWidget } from './jobview';
import { Model } from './model';
import { runningJobs } from './running';
import { StatusItem } from './status';

/** Clusters and jobs as this page knows them. */
export const IRayOffload = new Token<Model>(
  'jupyter-rayoffload:IRayOffload',
  'Clusters and jobs of this Jupyter server.'
);

const DOMAIN = 'jupyter_rayoffload';
const SIDEBAR = 'jupyter-rayoffload-sidebar';

const model: JupyterFrontEndPlugin<Model> = {
  id: 'jupyter-rayoffload:model',
  description: 'Knows the clusters and jobs of this server.',
  autoStart: true,
  provides: IRayOffload,
  activate: (app: JupyterFrontEnd) => {
    const { serverSettings, events } = app.serviceManager;
    return new Model(new Api(serverSettings), events.stream);
  }
};

const commands: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-rayoffload:commands',
  description: 'Commands for cells, jobs and clusters, and the button in the toolbar of a cell.',
  autoStart: true,
  requires: [IRayOffload],
  optional: [
    INotebookTracker,
    IDocumentManager,
    ICommandPalette,
    IToolbarWidgetRegistry,
    ISettingRegistry,
    ITranslator
  ],
  activate: (
    app: JupyterFrontEnd,
    known: Model,
    notebooks: INotebookTracker | null,
    documents: IDocumentManager | null,
    palette: ICommandPalette | null,
    toolbars: IToolbarWidgetRegistry | null,
    settings: ISettingRegistry | null,
    translator: ITranslator | null
  ) => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    let line = '';
    void settings?.load(commands.id).then(read => {
      const take = () => (line = String(read.get('line').composite ?? ''));
      take();
      read.changed.connect(take);
    });
    addCommands({ app, model: known, trans, notebooks, documents, line: () => line });
    const category = trans.__('Ray');
    const { clusterVerbs: _, openCell: __, ...ids } = CommandIDs;
    for (const command of Object.values(ids)) palette?.addItem({ command, category });
    toolbars?.addFactory<Cell>(
      'Cell',
      'run-on-ray',
      cell => new CellButton(cell, known, app.commands, trans)
    );
    if (notebooks) new Homecoming(known, notebooks, app.serviceManager.contents);
  }
};

/** What a panel under a cell can ask of the page around it: static/panel.js. */
interface Host {
  jupyterRayOffload?: { open: (id: string) => void };
}

const jobs: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-rayoffload:jobs',
  description: 'The view of one job in the main area.',
  autoStart: true,
  requires: [IRayOffload, IRenderMimeRegistry],
  optional: [ILabShell, ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    known: Model,
    rendermime: IRenderMimeRegistry,
    shell: ILabShell | null,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ) => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    const tracker = new WidgetTracker<JobWidget>({ namespace: 'jupyter-rayoffload' });
    app.commands.addCommand(CommandIDs.openJob, {
      label: trans.__('Open job'),
      describedBy: {
        args: {
          type: 'object',
          properties: {
            id: { type: 'string', description: 'Id of the job; the newest one by default' }
          }
        }
      },
      isEnabled: args => typeof args.id === 'string' || known.jobs.length > 0,
      execute: async args => {
        const id = typeof args.id === 'string' ? args.id : known.jobs[0]?.id;
        if (!id) return;
        let widget = tracker.find(open => open.content.jobId === id);
        if (!widget) {
          const { JobContent, JobWidget } = await import('./jobview');
          widget = new JobWidget(new JobContent(id, known, app.commands, rendermime, trans));
          void tracker.add(widget);
          // The main area of Notebook 7 holds one document and takes nothing else.
          app.shell.add(widget, shell ? 'main' : 'down');
        }
        app.shell.activateById(widget.id);
      }
    });
    void restorer?.restore(tracker, {
      command: CommandIDs.openJob,
      args: widget => ({ id: widget.content.jobId }),
      name: widget => widget.content.jobId
    });
    (globalThis as Host).jupyterRayOffload = {
      open: id => void app.commands.execute(CommandIDs.openJob, { id })
    };
  }
};

const sidebar: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-rayoffload:sidebar',
  description: 'Clusters and jobs beside the notebook.',
  autoStart: true,
  requires: [IRayOffload],
  optional: [ILabShell, ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    known: Model,
    shell: ILabShell | null,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ) => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    const place = new Place(async () => {
      const { Sidebar } = await import('./sidebar');
      return new Sidebar(known, app.commands, trans);
    });
    place.id = SIDEBAR;
    place.title.icon = rayIcon;
    place.title.caption = trans.__('Ray clusters and jobs');
    place.node.setAttribute('role', 'region');
    place.node.setAttribute('aria-label', trans.__('Ray'));
    app.shell.add(place, 'left', { rank: 550, type: 'Ray' });
    restorer?.add(place, SIDEBAR);
    app.commands.addCommand(CommandIDs.openSidebar, {
      label: trans.__('Show Ray sidebar'),
      describedBy: { args: { type: 'object', properties: {} } },
      execute: () => {
        if (!shell) (app.shell as { expandLeft?: (id: string) => void }).expandLeft?.(SIDEBAR);
        app.shell.activateById(SIDEBAR);
      }
    });
  }
};

/** Loads what it holds when it is first shown. */
class Place extends Panel {
  constructor(private readonly make: () => Promise<Widget>) {
    super();
    this.addClass('jp-RayOffload-place');
  }

  protected override onBeforeShow(): void {
    if (this.filled) return;
    this.filled = true;
    void this.make().then(widget => this.addWidget(widget));
  }

  private filled = false;
}

const status: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-rayoffload:status',
  description: 'One line about Ray in the status bar.',
  autoStart: true,
  requires: [IRayOffload],
  optional: [IStatusBar, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    known: Model,
    bar: IStatusBar | null,
    translator: ITranslator | null
  ) => {
    if (!bar) return; // Notebook 7 has none
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    const item: StatusItem = new StatusItem(known, app.commands, trans, () => undefined);
    bar.registerStatusItem('jupyter-rayoffload:status', {
      item,
      align: 'left',
      rank: 120,
      isActive: () => item.says,
      activeStateChanged: known.changed as never
    });
  }
};

const running: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-rayoffload:running',
  description: 'Jobs that have not ended, in the panel of what runs.',
  autoStart: true,
  requires: [IRayOffload],
  optional: [IRunningSessionManagers, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    known: Model,
    managers: IRunningSessionManagers | null,
    translator: ITranslator | null
  ) => {
    managers?.add(runningJobs(known, app.commands, (translator ?? nullTranslator).load(DOMAIN)));
  }
};

export default [model, commands, jobs, sidebar, status, running];
