// The package in a real browser: a mirror in IndexedDB that outlives its page.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { after, before, test } from 'node:test';

const { chromium } = createRequire(import.meta.url)('playwright-core');

const dist = new URL('../dist/', import.meta.url);
const types = { '.js': 'text/javascript', '.wasm': 'application/wasm' };
const folder = mkdtempSync(join(tmpdir(), 'datahike-browser-'));
let pages, browser, server, url, origin;

async function serve(address = '127.0.0.1:0') {
  server = spawn(process.env.DATAHIKE_SERVER, ['serve', '--data', join(folder, 'data'), '--listen', address, '--dev'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  for await (const chunk of server.stdout) {
    said += chunk;
    const found = /ws:\/\/[0-9.]+:\d+/.exec(said);
    if (found) return found[0];
  }
  throw new Error(`the server did not say where it listens: ${said}`);
}

before(async () => {
  url = await serve();
  pages = createServer((request, response) => {
    const path = new URL(request.url, 'http://localhost').pathname;
    if (path === '/') return response.setHeader('content-type', 'text/html').end('<!doctype html><title>datahike</title>');
    try {
      const body = readFileSync(new URL(`.${path}`, dist));
      return response.setHeader('content-type', types[extname(path)] ?? 'text/plain').end(body);
    } catch {
      response.statusCode = 404;
      return response.end();
    }
  });
  await new Promise((listening) => pages.listen(0, '127.0.0.1', listening));
  origin = `http://127.0.0.1:${pages.address().port}/`;
  browser = await chromium.launchPersistentContext(join(folder, 'profile'), {
    executablePath: process.env.DATAHIKE_CHROMIUM,
    args: ['--no-sandbox'],
  });
});

after(async () => {
  await browser?.close();
  pages?.close();
  server?.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

async function open() {
  const page = await browser.newPage();
  await page.goto(origin);
  await page.evaluate(async () => {
    window.d = await import('/index.js');
    window.names = '[:find [?name ...] :where [?e :name ?name]]';
    window.sorted = async (conn) => (await d.q(names, d.db(conn))).sort();
  });
  return page;
}

/** Ready once the mirror's log in IndexedDB has so many entries. */
async function logged([given, entries]) {
  const [, name] = /:name "([^"]+)"/.exec(given);
  const answer = (request) =>
    new Promise((resolve, reject) => Object.assign(request, { onsuccess: () => resolve(request.result), onerror: reject }));
  const database = await answer(indexedDB.open(name));
  while ((await answer(database.transaction('log').objectStore('log').count())) < entries);
  database.close();
}

const config = (id) => `{:store {:backend :tiered
                                 :frontend-config {:backend :memory :id #uuid "${id}"}
                                 :backend-config {:backend :indexeddb :name "db-${id}" :id #uuid "${id}"}
                                 :id #uuid "${id}"}
                         :writer {:backend :kabel :url "${url}"}
                         :schema-flexibility :write
                         :keep-history? true}`;

const schema = '[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]';

test('a mirror in IndexedDB is resumed by the next page, and read while the server is away', async () => {
  const given = config(crypto.randomUUID());
  const first = await open();
  const created = await first.evaluate(
    async ([given, schema]) => {
      await d.createDatabase(given);
      window.conn = await d.connect(given);
      await d.transact(conn, schema);
      await d.transact(conn, [{ name: 'Alice' }, { name: 'Bob' }]);
      return sorted(conn);
    },
    [given, schema],
  );
  assert.deepEqual(created, ['Alice', 'Bob']);

  const second = await open();
  const locked = await second.evaluate((given) => d.connect(given).then(() => 'open', (error) => error.code), given);
  assert.equal(locked, 'store/locked');

  // The page goes without a word, then the server.
  await first.evaluate(logged, [given, 2]);
  await first.close();
  server.kill('SIGKILL');
  const offline = await second.evaluate(async (given) => {
    window.conn = await d.connect(given);
    return [await sorted(conn), d.status(conn).state];
  }, given);
  assert.deepEqual(offline, [['Alice', 'Bob'], 'offline']);

  await serve(url.slice('ws://'.length));
  const online = await second.evaluate(async () => {
    const seen = new Promise((told) => d.watch(conn, names, [], ({ added }) => added.includes('Carol') && told(added)));
    await d.transact(conn, [{ name: 'Carol' }]);
    return [await seen, await sorted(conn)];
  });
  assert.deepEqual(online, [['Carol'], ['Alice', 'Bob', 'Carol']]);
  const gone = await second.evaluate(async (given) => {
    await d.release(conn);
    await d.deleteDatabase(given);
    return (await indexedDB.databases()).length;
  }, given);
  assert.equal(gone, 0);
  await second.close();
});

test('a database of the page alone is kept in IndexedDB', async () => {
  const given = '{:store {:backend :indexeddb :name "own"} :keep-history? true}';
  const page = await open();
  await page.evaluate(
    async ([given, schema]) => {
      await d.createDatabase(given);
      const conn = await d.connect(given);
      await d.transact(conn, schema);
      for (let n = 0; n < 30; n += 1) {
        await d.transact(conn, Array.from({ length: 100 }, (_, m) => ({ name: `name ${n * 100 + m}` })));
      }
    },
    [given, schema],
  );
  await page.close();
  const next = await open();
  const found = await next.evaluate(async (given) => {
    const conn = await d.connect(given);
    const count = await d.q('[:find (count ?e) . :where [?e :name]]', d.db(conn));
    const one = await d.q('[:find ?e . :where [?e :name "name 2999"]]', d.db(conn));
    const twice = await d.createDatabase(given).catch((error) => error.code);
    await d.release(conn);
    const exists = await d.databaseExists(given);
    await d.deleteDatabase(given);
    return [count, typeof one, twice, exists, await d.databaseExists(given)];
  }, given);
  assert.deepEqual(found, [3000, 'number', 'store/locked', true, false]);
  await next.close();
});
