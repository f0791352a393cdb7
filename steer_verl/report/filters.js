// Which rows are listed, and in which order.

const failed = (row) => row.first > 0;
const refused = (row) => row.kind === "benign" && (row.refusal === "full" || row.refusal === "partial");
const OUTCOMES = { failed, refused, missing: (row) => row.missing, held: (row) => !failed(row) && !refused(row) && !row.missing };

// The turns that are known to have held: of a dialogue that was cut off, or not rated to its end, not all of them.
const heldTo = (row) => (failed(row) ? row.first - 1 : row.missing ? row.marks.indexOf(null) : Infinity);

const AGAINST = {
  worse: (row, other) => failed(row) && heldTo(other) >= row.first,
  better: (row, other) => failed(other) && heldTo(row) >= other.first,
  same: (row, other) => failed(row) && row.first === other.first,
};

const named = (key) => ({ values: (row) => [row[key]], test: (row, value) => row[key] === value });
const listed = (key) => ({ values: (row) => row[key], test: (row, value) => row[key].includes(value) });

// Name of the form's field -> the values that rows have, and whether a row has one.
const FILTERS = {
  outcome: { test: (row, value) => OUTCOMES[value](row) },
  benchmark: named("benchmark"),
  first: { values: (row) => (row.first ? [row.first] : []), test: (row, value) => row.first === Number(value) },
  strategy: listed("strategies"),
  source: named("source"),
  kind: named("kind"),
  refusal: named("refusal"),
  unrated: listed("unrated"),
  oddity: listed("oddities"),
  end: named("end"),
};

const fault = (row) => (failed(row) ? row.first : refused(row) ? 100 : row.missing ? 200 : 300);
const lowest = (row) => row.marks.reduce((least, mark) => (mark === null || mark > least ? least : mark), 4);

const ORDERS = {
  failures: (a, b) => fault(a) - fault(b) || a.at - b.at,
  lowest: (a, b) => lowest(a) - lowest(b) || a.at - b.at,
  id: (a, b) => a.at - b.at,
};

// The rows of a run that pass. wanted: field -> value, empty for any; found: a set of rows or null; other: a run or null.
function passing(run, wanted, found, other) {
  const tests = Object.entries(FILTERS).filter(([name]) => wanted[name]);
  const rows = run.rows.filter((row) => {
    if (found && !found.has(row)) return false;
    if (!tests.every(([name, filter]) => filter.test(row, wanted[name]))) return false;
    const twin = other?.same(row);
    return !other || !wanted.against || Boolean(twin && AGAINST[wanted.against](row, twin));
  });
  return rows.sort(ORDERS[wanted.order || "failures"]);
}

// Fill a filter's list with the values that occur, and hide it where there is nothing to choose.
function fillFilter(select, filter, runs) {
  const found = new Set();
  for (const run of runs) for (const row of run.rows) for (const value of filter.values(row)) found.add(value);
  const values = [...found].filter((value) => value !== "").sort((a, b) => (a < b ? -1 : 1));
  select.append(...values.map((value) => element("option", { value }, plain(String(value)))));
  select.closest("label").hidden = values.length < (filter === FILTERS.first ? 1 : 2);
}

// Search all that was said; tell(found, done, of) as it goes on. A newer search ends an older one.
let searches = 0;
async function search(run, words, tell) {
  const mine = ++searches;
  const terms = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (!terms.length) return tell(null, 1, 1);
  const found = new Set();
  let told = 0;
  for (let number = 0; number < run.chunks; number++) {
    const texts = await run.said(number);
    if (mine !== searches) return;
    texts.forEach((text, at) => {
      if (terms.every((term) => text.includes(term))) found.add(run.rows[number * about.chunk + at]);
    });
    const now = performance.now();
    if (now - told < 100 && number + 1 < run.chunks) continue;
    told = now;
    tell(found, number + 1, run.chunks);
    await new Promise((resume) => setTimeout(resume)); // let the page draw
  }
}
