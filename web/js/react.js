// Watched queries as a React hook.

import { useMemo, useSyncExternalStore } from 'react';

import { live } from './index.js';

const nothing = { rows: undefined, error: undefined };

/** The rows of a query, kept up to date: `{ rows, error }`, `rows` undefined until they are there. */
export function useQuery(connection, query, ...inputs) {
  const store = useMemo(
    () => live(connection, query, ...inputs),
    [connection, query, JSON.stringify(inputs, (_, value) => (typeof value === 'bigint' ? `${value}n` : value))],
  );
  return useSyncExternalStore(store.subscribe, store.getSnapshot, () => nothing);
}
