// The browser of dialogues: one state, drawn into the page and written into its address.

const about = JSON.parse(find("about").textContent);
const TYPING = new Set(["INPUT", "SELECT", "TEXTAREA"]);

class Browser {
  constructor(runs) {
    this.runs = runs;
    this.form = find("filters");
    this.list = new List(find("list"), (row, byHand) => this.open(row, { byHand }));
    this.found = null;
    this.opened = null;
    this.fillForm();
    this.form.addEventListener("input", (event) => this.changed(event.target.name));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    find("clear").addEventListener("click", () => this.clear());
    find("back").addEventListener("click", () => find("list").focus());
    addEventListener("hashchange", () => this.follow());
  }

  get wanted() {
    return Object.fromEntries(new FormData(this.form));
  }

  get run() {
    return this.runs[Number(this.wanted.run ?? 0)];
  }

  get other() {
    const place = this.wanted.other ?? "";
    return place === "" || Number(place) === this.run.place ? null : this.runs[Number(place)];
  }

  fillForm() {
    const fields = this.form.elements;
    for (const [name, filter] of Object.entries(FILTERS)) if (filter.values) fillFilter(fields[name], filter, this.runs);
    const names = this.runs.map((run) => element("option", { value: run.place }, run.name));
    fields.run.append(...names);
    fields.other.append(...names.map((option) => option.cloneNode(true)));
    for (const name of ["run", "other", "against"]) fields[name].closest("label").hidden = this.runs.length < 2;
    fields.fold.checked = remembered("fold", about.fold ? "1" : "") === "1";
    find("more").open = matchMedia("(min-width: 56rem)").matches;
  }

  async changed(name) {
    if (name === "fold") remember("fold", this.wanted.fold ? "1" : "");
    if (name === "words" || name === "run") await this.seek();
    else this.redraw();
    if (!["fold", "other", "run"].includes(name) || !this.opened) return;
    const row = name === "run" ? this.run.same(this.opened) : this.opened;
    if (row) this.open(row);
    else this.close();
  }

  async clear() {
    const { run, other, fold } = this.wanted;
    this.form.reset();
    const fields = this.form.elements;
    [fields.run.value, fields.other.value, fields.fold.checked] = [run ?? 0, other ?? "", Boolean(fold)];
    await this.seek();
    this.form.elements.words.focus();
  }

  // Search anew; the list is busy until all was searched.
  seek() {
    find("list").setAttribute("aria-busy", "true");
    return search(this.run, this.wanted.words, (found, done, of) => {
      this.found = found;
      if (done === of) find("list").setAttribute("aria-busy", "false");
      this.redraw(done < of ? `, searched ${Math.round((100 * done) / of)} %` : "");
    });
  }

  redraw(more = "") {
    const { wanted, run, other } = this;
    this.form.elements.against.disabled = !other;
    const rows = passing(run, wanted, this.found, other);
    const set = [...Object.keys(FILTERS), "against"].filter((name) => wanted[name]).length;
    find("set").textContent = set ? ` (${set} set)` : "";
    find("count").textContent = `${shown(rows.length)} of ${shown(run.rows.length)} dialogues${more}`;
    find("nothing").hidden = rows.length > 0;
    this.list.show(rows);
  }

  // Show a dialogue, beside the other run's where one is chosen.
  async open(row, { byHand = false, quietly = false } = {}) {
    if (!row) return;
    this.opened = row;
    this.list.mark(row);
    const { run, other } = this, twin = other?.same(row);
    const pairs = [{ run, row }, ...(twin ? [{ run: other, row: twin }] : [])];
    const sides = await Promise.all(pairs.map(async (side) => ({ ...side, dialogue: await side.run.whole(side.row) })));
    if (this.opened !== row) return;
    const pane = find("detail"), missing = other && !twin ? [note(`${other.name} was not given this dialogue.`)] : [];
    pane.replaceChildren(...missing, detail(sides, Boolean(this.wanted.fold)));
    highlight(pane, this.wanted.words);
    find("said").textContent = `${row.id}: ${outcome(row)}`;
    if (pane.getBoundingClientRect().top < 0 || (byHand && narrow())) find("pane").scrollIntoView();
    if (!quietly) this.address(row);
  }

  // Leave the dialogue that the run which is listed now was not given.
  close() {
    this.opened = null;
    this.list.mark(null);
    find("detail").replaceChildren(note(`${this.run.name} was not given this dialogue.`));
    history.replaceState(null, "", "#dialogues");
  }

  address(row) {
    const parts = new URLSearchParams({ d: row.id });
    if (this.runs.length > 1) parts.set("run", this.run.name);
    if (this.other) parts.set("with", this.other.name);
    history.replaceState(null, "", `#${parts}`);
  }

  // Open what the address names.
  async follow() {
    const parts = new URLSearchParams(location.hash.slice(1));
    if (!parts.has("d")) return;
    const place = (name) => this.runs.findIndex((run) => run.name === parts.get(name));
    const fields = this.form.elements;
    if (place("run") >= 0) fields.run.value = place("run");
    if (place("with") >= 0) fields.other.value = place("with");
    this.redraw();
    const row = this.run.rows.find(({ id }) => id === parts.get("d"));
    if (!row) find("said").textContent = `There is no dialogue ${parts.get("d")} in this page.`;
    await this.open(row, { quietly: true });
    find("dialogues").scrollIntoView();
  }
}

const narrow = () => matchMedia("(max-width: 55.99rem)").matches;

function remembered(name, otherwise) {
  try { return sessionStorage.getItem(name) ?? otherwise; } catch { return otherwise; } // a page may be denied it
}

function remember(name, value) {
  try { sessionStorage.setItem(name, value); } catch { /* the choice then lasts until the page is left */ }
}

function keyboard(browser) {
  const list = find("list");
  const keys = {
    j: () => browser.list.move(1),
    k: () => browser.list.move(-1),
    "/": () => browser.form.elements.words.focus(),
    "?": () => find("help").showModal(),
    f: () => browser.form.elements.fold.click(),
  };
  const inList = {
    ArrowDown: keys.j, ArrowUp: keys.k,
    PageDown: () => browser.list.move(8), PageUp: () => browser.list.move(-8),
    Home: () => browser.list.pick(0), End: () => browser.list.pick(Infinity),
    Enter: () => find("detail-title")?.focus(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
    if (event.key === "Escape") return find("dialogues-browser").contains(event.target) ? list.focus() : undefined;
    if (TYPING.has(event.target.tagName)) {
      if (event.key === "Enter" && event.target.name === "words") list.focus();
      return;
    }
    const act = (event.target === list && inList[event.key]) || keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  find("help-open").addEventListener("click", keys["?"]);
}

async function start() {
  if (!about.runs.length) return;
  if (typeof DecompressionStream === "undefined") {
    find("count").textContent = "This browser is too old to unpack the dialogues (Chrome 80, Firefox 113, Safari 16.4 can).";
    return;
  }
  const rows = await Promise.all(about.runs.map((_, place) => unpack(`rows-${place}`)));
  const browser = new Browser(about.runs.map((run, place) => new Run(place, run, rows[place])));
  browser.redraw();
  keyboard(browser);
  await browser.follow();
  document.documentElement.dataset.ready = "1"; // tests and benchmarks wait for it
}

start();
