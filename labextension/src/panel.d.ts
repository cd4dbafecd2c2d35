// The panels' own modules, which the build copies here from jupyter_rayoffload/static.
declare module '#panel/dom.js' {
  type Child = Node | string | null | undefined;
  export function el<K extends keyof HTMLElementTagNameMap>(
    tag: K,
    attributes?: Record<string, unknown>,
    ...children: Child[]
  ): HTMLElementTagNameMap[K];
  export function icon(name: string, extra?: string): SVGElement;
  export function stateMark(state: string, word: string): HTMLElement;
  export function button(
    icon: string,
    label: string,
    onclick: (event: MouseEvent) => void,
    options?: Record<string, unknown>
  ): HTMLButtonElement;
  export function fill(text: string, numbers: Record<string, number>): string;
  export function duration(seconds: number): string;
  export function clock(seconds: number): string;
  export function sentence(
    text: string,
    now: () => number,
    times: Array<() => void>
  ): DocumentFragment;
  export function copyText(text: string): Promise<void>;
}

declare module '#panel/icons.js' {
  export const ICONS: Record<string, string>;
  export const LAB_ICONS: { ray: string };
}

declare module '#panel/log.js' {
  export interface Lines {
    first: number;
    lines: string[];
    total: number;
  }
  export interface Asked {
    want?: [number, number];
    find?: { id: string; text: string; case: boolean };
  }
  export class LogStore {
    constructor(send: (asked: Asked) => void);
    total: number;
    listeners: Set<(changed: number) => void>;
    message(message: {
      log?: Lines & { seq: number; changed: number };
      got?: { first: number; lines: string[] };
      found?: { id: string; lines: number[]; count: number };
    }): void;
    all(): Promise<string>;
  }
  export class LogView {
    constructor(store: LogStore, signal: AbortSignal);
    node: HTMLElement;
    draw(): void;
  }
}

declare module '#panel/panel.js' {
  import type { LogStore, LogView } from '#panel/log.js';

  /** What a panel shows; view.py makes it. */
  export interface JobView {
    id: string;
    name: string;
    group: string;
    state: string;
    word: string;
    ended: boolean;
    line: boolean;
    actions: Array<{ do: string; icon: string; label: string; text: boolean; href?: string }>;
    [more: string]: unknown;
  }
  export class Panel {
    constructor(
      model: { get(name: 'view'): JobView; send(asked: Intent): void },
      store: LogStore,
      heard: { offset: number; at: number; gone: boolean; listeners: Set<() => void> },
      node: HTMLElement,
      signal: AbortSignal
    );
    log: LogView;
    outputs: HTMLElement;
    root: HTMLElement;
    said: HTMLElement;
    now: () => number;
    times: Record<string, Array<() => void>>;
    slots: Record<string, { node: Node; key?: string }>;
    drawing: string;
    draw(): void;
    slot(name: string, shown: unknown, make: () => Node | null): void;
    place(name: string): Comment;
    boxRoot(): HTMLElement;
    shownView(): JobView | undefined;
    sentence(text: string): DocumentFragment;
  }
  export interface Intent {
    do: string;
    options?: Record<string, unknown>;
  }
}

declare module '#panel/cluster.js' {
  interface Model {
    get(name: 'view'): Record<string, unknown>;
    on(event: 'change:view', listener: () => void): void;
    send(asked: { do: string; options: Record<string, unknown> }): void;
  }
  const panel: {
    render(options: { model: Model; el: HTMLElement; signal: AbortSignal }): void;
  };
  export default panel;
}

declare module '#panel/profile.js' {
  interface Asked {
    profile: string;
    options: Record<string, unknown>;
    name: string;
  }
  export class ProfileForm {
    constructor(
      profiles: unknown[],
      words: Record<string, string>,
      start: (asked: Asked) => void,
      naming?: { title: string; default: string; check: (text: string) => string } | null
    );
    readonly node: HTMLElement;
    rest(rests: boolean, why: string): void;
  }
}
