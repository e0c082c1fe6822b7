// Answers cases from a file with DataScript: [{schema, transactions, rules, queries}] in, and for
// each {facts, answers: [{rows} or {error}]} out.
const fs = require("fs");
const d = require("datascript");

const attempt = (ask) => {
  try {
    return { rows: ask() };
  } catch (error) {
    return { error: String(error.message ?? error) };
  }
};

const cases = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const answers = cases.map(({ schema, transactions, rules, queries }) => {
  const db = transactions.reduce((db, tx) => d.db_with(db, tx), d.empty_db(schema));
  return {
    facts: d.datoms(db, ":eavt").map(({ e, a, v }) => [e, a, v]),
    answers: queries.map((text) => attempt(() => d.q(text, db, rules))),
  };
});
fs.writeFileSync(1, JSON.stringify(answers));
