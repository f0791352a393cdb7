// The dialogues inside this page: light rows at once, whole dialogues in chunks when they are asked for.
// Whatever is in them was written by models and strangers: it becomes text nodes (element, below), never markup.

const KEPT_CHUNKS = 8;

const parsed = new Promise((resolve) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve, { once: true });
  else resolve();
});

async function unpack(id) {
  const letters = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

class Run {
  constructor(place, about, rows) {
    Object.assign(this, about, { place, rows });
    rows.forEach((row, at) => Object.assign(row, { at, missing: row.marks.includes(null) || !row.marks.length }));
    this.bySame = new Map(rows.map((row) => [`${row.benchmark} ${row.same}`, row]));
    this.open = new Map(); // chunk -> promise of its dialogues, the one last used last
    this.words = []; // chunk -> what its dialogues say, in lower case, once it was searched
  }

  // The row of the same dialogue, when the row is another run's.
  same(row) {
    return this.bySame.get(`${row.benchmark} ${row.same}`);
  }

  chunk(number) {
    const known = this.open.get(number) ?? parsed.then(() => unpack(`chunk-${this.place}-${number}`));
    this.open.delete(number);
    this.open.set(number, known);
    if (this.open.size > KEPT_CHUNKS) this.open.delete(this.open.keys().next().value);
    return known;
  }

  async whole(row) {
    return (await this.chunk(Math.floor(row.at / about.chunk)))[row.at % about.chunk];
  }

  async said(number) {
    this.words[number] ??= (await parsed.then(() => unpack(`chunk-${this.place}-${number}`))).map(allWords);
    return this.words[number];
  }
}

function allWords(dialogue) {
  const turns = dialogue.turns.flatMap((turn) => [
    turn.question, turn.static, turn.answer, turn.thinking, turn.judged.why, turn.judged.detail, turn.tutor?.diagnosis,
  ]);
  const words = [dialogue.id, dialogue.source, dialogue.source_id, dialogue.category, dialogue.detail, ...turns];
  return words.filter(Boolean).join("\n").toLowerCase();
}

// An element: strings among its children are text. Names of elements and attributes are our own, values may be data.
function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const plain = (name) => name.replaceAll("_", " ");
const shown = (number) => number.toLocaleString("en");
const find = (id) => document.getElementById(id);
