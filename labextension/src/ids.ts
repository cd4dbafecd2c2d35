/** The commands, as settings, menus and other extensions call them. */
export const CommandIDs = {
  openSidebar: 'jupyter-rayoffload:open-sidebar',
  refresh: 'jupyter-rayoffload:refresh',
  runCell: 'jupyter-rayoffload:run-cell',
  runSelected: 'jupyter-rayoffload:run-selected-cells',
  openJob: 'jupyter-rayoffload:open-job',
  openCell: 'jupyter-rayoffload:open-cell-of-job',
  attach: 'jupyter-rayoffload:attach-job',
  cancel: 'jupyter-rayoffload:cancel-job',
  rerun: 'jupyter-rayoffload:rerun-job',
  deleteJob: 'jupyter-rayoffload:delete-job',
  copyId: 'jupyter-rayoffload:copy-job-id',
  dashboard: 'jupyter-rayoffload:open-dashboard',
  start: 'jupyter-rayoffload:start-cluster',
  scale: 'jupyter-rayoffload:scale-cluster',
  suspend: 'jupyter-rayoffload:suspend-cluster',
  resume: 'jupyter-rayoffload:resume-cluster',
  deleteCluster: 'jupyter-rayoffload:delete-cluster',
  /** By what the panel of a cluster calls them. */
  clusterVerbs: {
    start: 'jupyter-rayoffload:start-cluster',
    scale: 'jupyter-rayoffload:scale-cluster',
    suspend: 'jupyter-rayoffload:suspend-cluster',
    resume: 'jupyter-rayoffload:resume-cluster',
    delete: 'jupyter-rayoffload:delete-cluster'
  } as Record<string, string>
} as const;
