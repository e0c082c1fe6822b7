import type { Connection, Input, Row, Live } from './index.js';

/** The rows of a query, kept up to date: `rows` is undefined until they are there. */
export function useQuery<R extends Row = Row>(
  connection: Connection,
  query: string,
  ...inputs: Input[]
): ReturnType<Live<R>['getSnapshot']>;
