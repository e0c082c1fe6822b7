// Checked by the compiler alone: what a typed application writes.

import * as d from '../dist/index.js';
import type { Config, Change, TxReport } from '../dist/index.js';

const config: Config = {
  store: { backend: ':memory', id: 'people' },
  writer: { backend: ':kabel', url: 'ws://127.0.0.1:4444', token: 'secret' },
  schemaFlexibility: ':write',
  keepHistory: true,
};

export async function main(): Promise<void> {
  await d.createDatabase(config);
  const conn = await d.connect(config);
  const report: TxReport = await d.transact(conn, [{ name: 'Alice', born: new Date(0) }, [':db/add', 1, ':name', 'Bob']]);
  const names: [string][] = await d.q<[string][]>('[:find ?n :where [_ :name ?n]]', report.dbAfter);
  const person = await d.pull<{ ':name': string }>(d.db(conn), '[:name]', [':name', names[0]![0]]);
  person?.[':name'].toUpperCase();
  const stop = d.watch<[string]>(conn, '[:find ?n :where [_ :name ?n]]', [], (change: Change<[string]>) => {
    if (change.error) console.error(change.error.code);
    else change.rows.map(([name]) => name.length);
  });
  const then: d.Database = d.asOf(d.db(conn), new Date(0));
  await d.with(then, '[{:name "Carol"}]');
  stop();
  // @ts-expect-error: a connection is no database value
  await d.q('[:find ?n :where [_ :name ?n]]', conn, 1 as never, {} as d.Connection);
  // @ts-expect-error: there is no such backend
  const wrong: Config = { store: { backend: ':s4', id: 'people' } };
  void wrong;
}
