// The package in Node: the engine is read from disk, so that importing it is enough.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

import { initSync } from './engine.js';

// Node has a WebSocket of its own from 22 on.
if (globalThis.WebSocket === undefined) {
  try {
    globalThis.WebSocket = createRequire(import.meta.url)('ws');
  } catch {
    // Databases in memory need none; whoever dials is told that there is none.
  }
}

initSync({ module: readFileSync(new URL('./engine_bg.wasm', import.meta.url)) });

export * from './index.js';
