//! A live-syncing Datalog database: connections, snapshots, mirrors, watched queries.
