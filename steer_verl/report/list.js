// The list of dialogues: a listbox in which only the rows in sight exist.

class List {
  constructor(box, onPick) {
    Object.assign(this, { box, onPick, rows: [], picked: null });
    this.room = element("div", { role: "presentation", class: "room" });
    box.append(this.room);
    this.height = 84; // of a row, as page.css has it
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.pick(Number(option.dataset.at), true);
    });
  }

  show(rows) {
    this.rows = rows;
    this.room.style.height = `${rows.length * this.height}px`;
    this.box.scrollTop = Math.max(0, this.place() - 1) * this.height;
    this.draw();
  }

  place() {
    return this.picked === null ? -1 : this.rows.indexOf(this.picked);
  }

  // Choose the row at a place of the list; byHand: with the mouse.
  pick(at, byHand = false) {
    if (!this.rows.length) return;
    const place = Math.min(Math.max(at, 0), this.rows.length - 1);
    this.mark(this.rows[place]);
    this.onPick(this.picked, byHand);
  }

  // Mark a row as the chosen one and bring it into sight; the list need not have it.
  mark(row) {
    this.picked = row;
    const top = this.place() * this.height;
    const { scrollTop, clientHeight } = this.box;
    if (top >= 0 && (top < scrollTop || top + this.height > scrollTop + clientHeight)) {
      this.box.scrollTop = top < scrollTop ? top : top + this.height - clientHeight;
    }
    this.draw();
  }

  move(by) {
    this.pick(this.place() < 0 ? 0 : this.place() + by);
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.height) - 4);
    const last = Math.min(this.rows.length, first + Math.ceil(this.box.clientHeight / this.height) + 8);
    const options = [];
    for (let at = first; at < last; at++) options.push(this.option(this.rows[at], at));
    this.room.replaceChildren(...options);
    const current = options.find((option) => option.getAttribute("aria-selected") === "true");
    if (current) this.box.setAttribute("aria-activedescendant", current.id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  option(row, at) {
    const option = element(
      "div",
      {
        role: "option", id: `option-${at}`, class: "row", "data-at": at, "aria-posinset": at + 1,
        "aria-setsize": this.rows.length, "aria-selected": String(row === this.picked),
      },
      element("span", { class: "top" }, element("b", { dir: "auto" }, row.id), " ", element("span", { class: "quiet" }, outcome(row))), " ",
      element("span", { class: "head", dir: "auto" }, row.head || "(nothing was said)"), " ",
      strip(row),
    );
    option.style.top = `${at * this.height}px`;
    return option;
  }
}

function outcome(row) {
  if (failed(row)) return `fails at turn ${row.first}`;
  if (refused(row)) return `${row.refusal} refusal`;
  if (row.missing) return row.played < row.marks.length ? `ends at turn ${row.played}` : "unrated turns";
  return row.kind === "benign" ? "benign" : "holds";
}

const tone = (mark) => (mark === null ? "none" : mark < 0 ? "bad" : mark < about.failBelow ? "fair" : "good");

// The marks of all turns; a question mark for a turn without a rating, a dash for one that was not played.
function strip(row) {
  const marks = row.marks.map((mark, at) => {
    const text = mark ?? (at < row.played ? "?" : "–");
    return element("span", { class: `score ${tone(mark)}${at + 1 === row.first ? " first" : ""}` }, String(text));
  });
  return element("span", { class: "strip" }, ...marks.flatMap((mark) => [mark, " "])); // spaces are for the ear
}
