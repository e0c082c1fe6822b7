/** What a database holds, as plain data: keywords are strings with their colon, integers beyond 2^53 are `bigint`s. */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Date
  | Uint8Array
  | Float32Array
  | Float64Array
  | readonly Value[]
  | ReadonlySet<Value>
  | ReadonlyMap<Value, Value>
  | { readonly [key: string]: Value };

/** One row of a query. */
export type Row = readonly Value[] | Value;

/** `[entity, attribute, value, transaction, added]` */
export type Datom = readonly [e: number, a: string, v: Value, tx: number, added: boolean];

/** An entity: its id, an ident as in `':person/alice'`, or a lookup ref as in `[':email', 'a@b.c']`. */
export type EntityRef = number | string | readonly [string, Value];

/** A transaction id or an instant. */
export type TimePoint = number | Date;

export type StoreConfig =
  | { backend: ':memory'; id: string }
  /** Outlives the page. One page at a time has it open. */
  | { backend: ':indexeddb'; name: string; id?: string }
  | { backend: ':tiered'; frontendConfig: StoreConfig; backendConfig: StoreConfig; id?: string };

/** Where a database is and who writes it. EDN with Datahike's keys does as well. */
export interface Config {
  store: StoreConfig;
  /** A server peer that owns the database; without one this process does. */
  writer?: { backend: ':kabel'; url: string; peerId?: string; database?: string; token?: string };
  schemaFlexibility?: ':read' | ':write';
  keepHistory?: boolean;
  branch?: string;
}

/** A connection to a database. */
export interface Connection {
  readonly __connection: unique symbol;
}

/** An immutable database value. */
export interface Database {
  readonly __database: unique symbol;
  /** Id of the newest transaction. */
  readonly maxTx: number;
}

/** What a transaction did. */
export interface TxReport {
  tx: number;
  txInstant: Date;
  txData: Datom[];
  /** What the tempids came to mean. */
  tempids: { [tempid: string]: number };
  dbBefore: Database;
  dbAfter: Database;
}

/** What came and went in the result of a watched query, and the result after it. */
export type Change<R> =
  | { rows: R[]; added: R[]; removed: R[]; from: number; to: number; error?: undefined }
  | { error: DatahikeError };

export interface Status {
  /** `local` where this process owns the database. */
  state: 'local' | 'offline' | 'syncing' | 'synced';
  maxTx: number;
  error?: string;
  bytesSent?: number;
  bytesReceived?: number;
}

/** A watched query as something to subscribe to. */
export interface Live<R> {
  getSnapshot(): { rows: R[] | undefined; error: DatahikeError | undefined };
  subscribe(subscriber: (snapshot: ReturnType<Live<R>['getSnapshot']>) => void): () => void;
}

/** What a call was refused with, or why it failed. */
export class DatahikeError extends Error {
  /** Stable, as in `transact/unique`. */
  readonly code: string;
  readonly data?: Value;
}

/** Inputs of a query besides databases. Strings that begin with a colon are keywords. */
export type Input = Value;

/** Transaction data: EDN, or maps and `[':db/add', e, a, v]` forms, whose values the schema gives their type. */
export type TxData = string | readonly ({ readonly [attribute: string]: Value } | readonly Value[])[];

/** Loads the engine, from where the package lies or from what is given. Every function does it by itself. */
export function load(module?: BufferSource | WebAssembly.Module | URL | string): Promise<unknown>;

/** Creates a database and returns its configuration as EDN, with the identity it was given. */
export function createDatabase(config: Config | string): Promise<string>;
export function databaseExists(config: Config | string): Promise<boolean>;
/** Deletes a database and all that is stored of it. */
export function deleteDatabase(config: Config | string): Promise<void>;
/** Connects; with a writer elsewhere the database is mirrored here first. */
export function connect(config: Config | string): Promise<Connection>;
/** Ends a connection, its watches and its listeners. */
export function release(connection: Connection): Promise<void>;
/** The newest database value. */
export function db(connection: Connection): Database;
/** Ready once the transaction is durable and shows in `db`. */
export function transact(connection: Connection, data: TxData): Promise<TxReport>;
export function status(connection: Connection): Status;

/** Answers a query over databases and other inputs, in the order of its `:in`. */
export function q<T = Value[][]>(query: string | readonly Value[], ...inputs: (Database | Input)[]): Promise<T>;
export function pull<T = { [attribute: string]: Value }>(
  database: Database,
  pattern: string | readonly Value[],
  entity: EntityRef,
): Promise<T | null>;
export function pullMany<T = { [attribute: string]: Value }>(
  database: Database,
  pattern: string | readonly Value[],
  entities: readonly EntityRef[],
): Promise<(T | null)[]>;
/** All attributes of an entity. */
export function entity<T = { [attribute: string]: Value }>(database: Database, id: EntityRef): Promise<T | null>;
export function datoms(
  database: Database,
  index: 'eavt' | 'aevt' | 'avet' | ':eavt' | ':aevt' | ':avet',
  ...components: Value[]
): Promise<Datom[]>;
export function schema(database: Database): { [attribute: string]: Value };
/** All that was ever true. */
export function history(database: Database): Database;
/** The state at a point in time. */
export function asOf(database: Database, point: TimePoint): Database;
/** What was transacted after a point in time. */
export function since(database: Database, point: TimePoint): Database;
/** What a transaction would do, done to this value alone. */
declare function with_(database: Database, data: TxData): Promise<TxReport>;
export { with_, with_ as with };

/** Calls back with every tx report from here on, `gap` where some went unseen; returns the key to end it by. */
export function listen(connection: Connection, callback: (report: TxReport | { gap: [number, number] }) => void): string;
export function listen(connection: Connection, key: string, callback: (report: TxReport | { gap: [number, number] }) => void): string;
/** Ends what listens under the key; false if nothing does. */
export function unlisten(connection: Connection, key: string): boolean;
/** Calls back with the result of a query and after each change to it; returns how to end it. */
export function watch<R extends Row = Row>(
  connection: Connection,
  query: string,
  inputs: readonly Input[],
  callback: (change: Change<R>) => void,
): () => void;
/** A watched query as something to subscribe to. */
export function live<R extends Row = Row>(connection: Connection, query: string, ...inputs: Input[]): Live<R>;
