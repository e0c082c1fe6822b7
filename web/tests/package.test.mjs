// The package as Node imports it, against the real server.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import * as d from '../dist/node.js';

const name = { 'db/ident': ':name', 'db/valueType': ':db.type/string', 'db/cardinality': ':db.cardinality/one' };
const names = '[:find ?name :where [?e :name ?name]]';
const sorted = (rows) => rows.map(([first]) => first).sort();
const memory = () => ({ store: { backend: ':memory', id: crypto.randomUUID() } });

const ended = [];
after(() => ended.forEach((end) => end()));

async function serve(...options) {
  const data = mkdtempSync(join(tmpdir(), 'datahike-web-'));
  const start = async (address) => {
    const server = spawn(
      process.env.DATAHIKE_SERVER,
      ['serve', '--data', data, '--listen', address, ...options],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    let said = '';
    for await (const chunk of server.stdout) {
      said += chunk;
      const found = /ws:\/\/([0-9.]+:\d+)/.exec(said);
      if (found) return { server, address: found[1] };
    }
    throw new Error(`the server did not say where it listens: ${said}`);
  };
  let { server, address } = await start('127.0.0.1:0');
  ended.push(() => {
    server.kill('SIGKILL');
    rmSync(data, { recursive: true, force: true });
  });
  return {
    url: `ws://${address}`,
    async stop() {
      server.kill('SIGTERM');
      await once(server, 'exit');
    },
    async restart() {
      ({ server } = await start(address));
    },
  };
}

const mirrored = (url, more = {}) => ({
  ...memory(),
  writer: { backend: ':kabel', url, ...more },
  schemaFlexibility: ':write',
  keepHistory: true,
});

/** What a callback is told, one after the other. */
function told() {
  const waiting = [];
  const takers = [];
  return {
    tell: (thing) => (takers.length > 0 ? takers.shift()(thing) : waiting.push(thing)),
    next: () =>
      waiting.length > 0 ? Promise.resolve(waiting.shift()) : new Promise((take) => takers.push(take)),
  };
}

test('a database in memory is created, queried, pulled, looked back upon and deleted', async () => {
  const config = memory();
  assert.equal(await d.databaseExists(config), false);
  await d.createDatabase(config);
  assert.equal(await d.databaseExists(config), true);
  const conn = await d.connect(config);
  await d.transact(conn, [
    name,
    { 'db/ident': ':born', 'db/valueType': ':db.type/instant', 'db/cardinality': ':db.cardinality/one' },
    { 'db/ident': ':tags', 'db/valueType': ':db.type/keyword', 'db/cardinality': ':db.cardinality/many' },
    { 'db/ident': ':height', 'db/valueType': ':db.type/double', 'db/cardinality': ':db.cardinality/one' },
    { 'db/ident': ':email', 'db/valueType': ':db.type/string', 'db/cardinality': ':db.cardinality/one', 'db/unique': ':db.unique/identity' },
    { 'db/ident': ':big', 'db/valueType': ':db.type/long', 'db/cardinality': ':db.cardinality/one' },
  ]);
  const born = new Date('1815-12-10');
  const report = await d.transact(conn, [
    { 'db/id': 'ada', name: ':Ada', born, tags: [':math', ':poetry'], height: 1, email: 'ada@x.y', big: 2n ** 60n },
  ]);
  const ada = report.tempids.ada;
  const pulled = await d.pull(d.db(conn), '[:name :born :tags :height :big]', [':email', 'ada@x.y']);
  assert.deepEqual(pulled, { ':name': ':Ada', ':born': born, ':tags': [':math', ':poetry'], ':height': 1, ':big': 2n ** 60n });
  assert.deepEqual(await d.pull(d.db(conn), [':name'], ada), { ':name': ':Ada' });

  const later = await d.transact(conn, `[[:db/add ${ada} :name "Ada Lovelace"]]`);
  assert.deepEqual(later.txData.map(([e, a, v, , added]) => [e, a, v, added]).slice(-2), [
    [ada, ':name', ':Ada', false],
    [ada, ':name', 'Ada Lovelace', true],
  ]);
  const then = d.asOf(d.db(conn), report.tx);
  assert.deepEqual(await d.q(names, then), [[':Ada']]);
  assert.deepEqual(await d.q(names, d.db(conn)), [['Ada Lovelace']]);
  assert.deepEqual(sorted(await d.q(names, d.history(d.db(conn)))), [':Ada', 'Ada Lovelace']);
  assert.deepEqual(await d.q(names, d.since(d.db(conn), report.tx)), [['Ada Lovelace']]);
  const changed = '[:find ?now . :in $old $new :where [$old ?e :name _] [$new ?e :name ?now]]';
  assert.equal(await d.q(changed, then, d.db(conn)), 'Ada Lovelace');
  assert.deepEqual(await d.q('[:find ?t :in $ ?t :where [_ :tags ?t]]', d.db(conn), ':math'), [[':math']]);

  const what = await d.with(d.db(conn), [{ name: 'Charles' }]);
  assert.deepEqual(sorted(await d.q(names, what.dbAfter)), ['Ada Lovelace', 'Charles']);
  assert.deepEqual(await d.q(names, d.db(conn)), [['Ada Lovelace']]);
  const datoms = await d.datoms(d.db(conn), 'aevt', ':name');
  assert.deepEqual(datoms.map(([e, a, v]) => [e, a, v]), [[ada, ':name', 'Ada Lovelace']]);
  assert.equal(d.schema(d.db(conn))[':name'][':db/valueType'], ':db.type/string');
  assert.equal(d.status(conn).state, 'local');

  await d.release(conn);
  await d.deleteDatabase(config);
  assert.equal(await d.databaseExists(config), false);
});

test('errors have codes', async () => {
  const config = memory();
  await d.createDatabase(config);
  const conn = await d.connect(config);
  const refused = (code) => (error) => error instanceof d.DatahikeError && error.code === code;
  await assert.rejects(d.transact(conn, [{ nope: 1 }]), (error) => error instanceof d.DatahikeError && /nope/.test(error.message));
  await assert.rejects(d.createDatabase(config), refused('database/exists'));
  await assert.rejects(d.connect(memory()), refused('database/missing'));
  await assert.rejects(d.q('[:find ?e :where', d.db(conn)), d.DatahikeError);
  await assert.rejects(d.transact(conn, [{ name: () => 1 }]), refused('argument/invalid'));
  const endless = [];
  endless.push(endless);
  await assert.rejects(d.transact(conn, endless), refused('argument/invalid'));
  await d.release(conn);
});

test('the example of a browser client: created over the wire, mirrored, queried here', async () => {
  const peerId = 'aaaaaaaa-0000-0000-0000-000000000001';
  const { url } = await serve('--dev', '--peer-id', peerId);
  const id = crypto.randomUUID();
  const config = `{:store {:backend :tiered
                           :frontend-config {:backend :memory :id #uuid "${id}"}
                           :backend-config {:backend :memory :id #uuid "${id}"}
                           :id #uuid "${id}"}
                   :writer {:backend :kabel :peer-id #uuid "${peerId}" :url "${url}"}
                   :schema-flexibility :write
                   :keep-history? false}`;
  await d.createDatabase(config);
  const conn = await d.connect(config);
  await d.transact(conn, [name]);
  await d.transact(conn, [{ name: 'Alice' }, { name: 'Bob' }]);
  assert.deepEqual(sorted(await d.q(names, d.db(conn))), ['Alice', 'Bob']);
  await d.release(conn);
  await d.deleteDatabase(config);
});

test('what another peer writes is told here, and what is written while the server is away arrives', async () => {
  const server = await serve('--dev');
  const tool = (input, ...words) => {
    const { status, stderr } = spawnSync(process.env.DATAHIKE_SERVER, words, { input, encoding: 'utf8' });
    assert.equal(status, 0, stderr);
  };
  tool('', 'create', `${server.url}/people`);
  const conn = await d.connect(mirrored(server.url, { database: 'people' }));
  await d.transact(conn, [name]);

  const changes = told();
  const stop = d.watch(conn, names, [], changes.tell);
  assert.deepEqual((await changes.next()).rows, []);
  const reports = told();
  const key = d.listen(conn, reports.tell);
  tool('[{:name "Alice"}]', 'transact', `${server.url}/people`, '-');
  const first = await changes.next();
  assert.deepEqual([first.added, first.removed, first.rows], [[['Alice']], [], [['Alice']]]);
  const report = await reports.next();
  assert.equal(report.tx, first.to);
  assert.deepEqual(await d.q(names, report.dbAfter), [['Alice']]);
  assert.equal(d.unlisten(conn, key), true);
  assert.equal(d.unlisten(conn, key), false);
  assert.equal(d.status(conn).state, 'synced');
  assert.ok(d.status(conn).bytesReceived > 0);

  await server.stop();
  assert.deepEqual(await d.q(names, d.db(conn)), [['Alice']]);
  const written = d.transact(conn, [{ name: 'Bob' }]);
  await server.restart();
  const { tx } = await written;
  const second = await changes.next();
  assert.deepEqual([second.added, second.to], [[['Bob']], tx]);
  stop();
  await d.release(conn);
});

test('a token opens, and a wrong one is told so', async () => {
  const { url } = await serve('--token', 'secret');
  await d.createDatabase(mirrored(url, { token: 'secret' }));
  await assert.rejects(d.createDatabase(mirrored(url, { token: 'wrong' })), d.DatahikeError);
});

test('a subscribable query has a snapshot and tells its subscribers', async () => {
  const config = memory();
  await d.createDatabase(config);
  const conn = await d.connect(config);
  await d.transact(conn, [name]);
  const store = d.live(conn, names);
  assert.deepEqual(store.getSnapshot(), { rows: undefined, error: undefined });
  const seen = told();
  const end = store.subscribe(seen.tell);
  assert.deepEqual((await seen.next()).rows, []);
  await d.transact(conn, [{ name: 'Alice' }]);
  assert.deepEqual((await seen.next()).rows, [['Alice']]);
  assert.deepEqual(store.getSnapshot().rows, [['Alice']]);
  end();
  await d.release(conn);
});

test('require gives the same package', () => {
  const script = `const d = require('./web/dist/node.js');
    const config = { store: { backend: ':memory', id: 'by-require' }, schemaFlexibility: ':read' };
    d.createDatabase(config)
      .then(() => d.connect(config))
      .then(async (conn) => {
        await d.transact(conn, [{ name: 'Alice' }]);
        console.log(await d.q('[:find ?n . :where [_ :name ?n]]', d.db(conn)));
      });`;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  assert.equal(stdout, 'Alice\n', stderr);
});
