// DataScript as a peer of the benchmarks. One line of JSON on stdin is an order, one on stdout its
// answer: {"load": FILE} or {"run": ID, "ms": BUDGET}. The budget is for one turn, which answers the
// median time of a run in milliseconds and how much was found.
const fs = require("fs");
const readline = require("readline");
const d = require("datascript");

const schema = {
  alias: { ":db/cardinality": ":db.cardinality/many" },
  follows: { ":db/cardinality": ":db.cardinality/many", ":db/valueType": ":db.type/ref" },
};
const empty = d.empty_db(schema);
const run = {};

function load(data) {
  const people = data.people.map(({ id, ...rest }) => ({ ":db/id": id, ...rest }));
  const db = d.db_with(empty, people);
  for (const [id, { text, inputs }] of Object.entries(data.queries)) {
    run[id] = () => d.q(text, db, ...inputs).length;
  }
  for (const [id, edges] of Object.entries(data.graphs)) {
    const graph = d.db_with(empty, edges.map(([from, to]) => [":db/add", from, "follows", to]));
    run[id] = () => d.q(data.closure, graph, data.rules).length;
  }
  const tree = d.db_with(empty, data.tree.map(({ id, ...rest }) => ({ ":db/id": id, ...rest })));
  for (const [id, pattern] of Object.entries(data.pulls)) {
    run[id] = () => Object.keys(d.pull(tree, pattern, 1)).length;
  }
  const count = (db) => d.datoms(db, ":eavt").length;
  const facts = ["name", "last-name", "sex", "age", "salary"];
  const one = people.flatMap((p) => facts.map((a) => [[":db/add", p[":db/id"], a, p[a]]]));
  run["add-1"] = () => one.reduce((db, tx) => d.db_with(db, tx), empty);
  run["add-5"] = () => people.reduce((db, p) => d.db_with(db, [p]), empty);
  run["add-all"] = () => d.db_with(empty, people);
  const datoms = d.datoms(db, ":eavt").map(({ e, a, v }) => ({ e, a, v, tx: 536870913 }));
  run["init"] = () => d.init_db(datoms, schema);
  const gone = data.people.map(({ id }) => [[":db.fn/retractEntity", id]]);
  run["retract-5"] = () => gone.reduce((db, tx) => d.db_with(db, tx), db);
  run["freeze"] = () => JSON.stringify(d.serializable(db)).length && db;
  const frozen = JSON.stringify(d.serializable(db));
  run["thaw"] = () => d.from_serializable(JSON.parse(frozen));
  return { loaded: count(db) };
}

function turn(id, budget) {
  const times = [];
  const end = performance.now() + budget;
  let found;
  do {
    const start = performance.now();
    found = run[id]();
    times.push(performance.now() - start);
  } while (performance.now() < end);
  times.sort((a, b) => a - b);
  if (typeof found !== "number") found = d.datoms(found, ":eavt").length;
  return { ms: times[times.length >> 1], found };
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  const answer = order.load
    ? load(JSON.parse(fs.readFileSync(order.load, "utf8")))
    : turn(order.run, order.ms);
  console.log(JSON.stringify(answer));
});
