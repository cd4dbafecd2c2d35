import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    environment: 'jsdom',
    include: ['tests/**/*.spec.ts'],
    setupFiles: ['tests/setup.ts'],
    // JupyterLab's packages are written for a bundler: imports without endings, and of styles.
    server: { deps: { inline: [/@jupyter/] } },
    // What JupyterLab's packages say of jsdom and of cells without a notebook; it is of no use here.
    onConsoleLog: said => !/Clipboard API not available|Add Yjs type to a document/.test(said),
    restoreMocks: true
  }
});
