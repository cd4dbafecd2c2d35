import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    environment: 'jsdom',
    include: ['tests/**/*.spec.ts'],
    setupFiles: ['tests/setup.ts'],
    // JupyterLab's packages are written for a bundler: imports without endings, and of styles.
    server: { deps: { inline: [/@jupyter/] } },
    restoreMocks: true
  }
});
