// The package: functions after Datahike's JavaScript API, around the classes of the engine.

import init, * as engine from './engine.js';

/** What a call was refused with, or why it failed. */
export class DatahikeError extends Error {
  constructor(message, code, data) {
    super(message);
    this.name = 'DatahikeError';
    this.code = code;
    this.data = data;
  }
}

function failure(error) {
  return typeof error?.code === 'string' && !(error instanceof DatahikeError)
    ? new DatahikeError(error.message, error.code, error.data)
    : error;
}

/** Loads the engine, from where the package lies or from what is given. Every function does it by itself. */
export function load(module) {
  return init(module === undefined ? undefined : { module_or_path: module });
}

async function call(work) {
  await load();
  try {
    return await work();
  } catch (error) {
    throw failure(error);
  }
}

function now(work) {
  try {
    return work();
  } catch (error) {
    throw failure(error);
  }
}

export const createDatabase = (config) => call(() => engine.createDatabase(config));
export const databaseExists = (config) => call(() => engine.databaseExists(config));
export const deleteDatabase = (config) => call(() => engine.deleteDatabase(config));
export const connect = (config) => call(() => engine.connect(config));
export const release = (connection) => call(() => connection.release());
export const transact = (connection, data) => call(() => connection.transact(data));

export const db = (connection) => connection.db();
export const status = (connection) => connection.status();

export function q(query, ...inputs) {
  return call(() => {
    const databases = inputs.filter((input) => input instanceof engine.Database);
    const rest = inputs.map((input) => (input instanceof engine.Database ? undefined : input ?? null));
    return engine.q(query, databases.map((database) => database.handle()), rest);
  });
}

export const pull = async (database, pattern, entity) =>
  (await pullMany(database, pattern, [entity]))[0];
export const pullMany = (database, pattern, entities) =>
  call(() => database.handle().pullMany(pattern, entities));
export const entity = (database, id) => pull(database, '[*]', id);
export const datoms = (database, index, ...components) =>
  call(() => database.handle().datoms(index, components));

export const schema = (database) => database.schema();
export const history = (database) => now(() => database.history());
export const asOf = (database, point) => now(() => database.asOf(point));
export const since = (database, point) => now(() => database.since(point));
export const with_ = (database, data) => call(() => database.handle().with(data));
export { with_ as with };

const listeners = new WeakMap();
let keys = 0;

/** Calls back with every tx report from here on; returns the key to end it by. */
export function listen(connection, keyOrCallback, callback) {
  const key = callback === undefined ? `listener-${(keys += 1)}` : keyOrCallback;
  unlisten(connection, key);
  if (!listeners.has(connection)) listeners.set(connection, new Map());
  listeners.get(connection).set(key, connection.listen(callback ?? keyOrCallback));
  return key;
}

/** Ends what listens under the key; false if nothing does. */
export function unlisten(connection, key) {
  const subscription = listeners.get(connection)?.get(key);
  subscription?.stop();
  return listeners.get(connection)?.delete(key) ?? false;
}

/** Calls back with the result of a query and after each change to it; returns how to end it. */
export function watch(connection, query, inputs, callback) {
  const told = (change) => {
    if (change.error) change.error = failure(change.error);
    callback(change);
  };
  const subscription = now(() => connection.watch(query, inputs, told));
  return () => subscription.stop();
}

/** A watched query as `{ subscribe, getSnapshot }`, which React, Svelte and others take. */
export function live(connection, query, ...inputs) {
  let snapshot = { rows: undefined, error: undefined };
  const subscribers = new Set();
  let end;
  return {
    getSnapshot: () => snapshot,
    subscribe(subscriber) {
      subscribers.add(subscriber);
      end ??= watch(connection, query, inputs, (change) => {
        snapshot = change.error
          ? { rows: snapshot.rows, error: change.error }
          : { rows: change.rows, error: undefined };
        for (const each of subscribers) each(snapshot);
      });
      return () => {
        subscribers.delete(subscriber);
        if (subscribers.size === 0) {
          end?.();
          end = undefined;
        }
      };
    },
  };
}
