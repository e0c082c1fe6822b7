#!/usr/bin/env bash
# From nothing to a query's result in tagged JSON, with curl alone.
#
#   datahike serve --data data --token securerandompassword
#   examples/json-over-http.sh http://127.0.0.1:4444 'token: securerandompassword'
set -euo pipefail

server=${1:-http://127.0.0.1:4444}
header=${2:-Authorization: token ${DATAHIKE_TOKEN:-securerandompassword}}

call() { # METHOD OPERATION ARGUMENTS
  curl --silent --show-error --fail-with-body --request "$1" "$server/$2" \
    --header "$header" --header 'Content-Type: application/json' --data "$3"
}

# A first argument that is a string is EDN.
config=$(call POST create-database '["{:schema-flexibility :read}"]')
echo "config:     $config"

connection=$(call POST connect "[$config]")
echo "connection: $connection"

report=$(call POST transact "[$connection, [{\"name\": \"Peter\", \"age\": 42}]]")
echo "report:     $report"

db=$(call POST db "[$connection]")
echo "db:         $db"

call GET q "[\"[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]\", $db]"
echo
