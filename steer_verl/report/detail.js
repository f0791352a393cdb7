// One dialogue with all that was said, alone or beside the same one of another run.

const LONG = 4000; // characters beyond which a passage scrolls by itself
const ORIGINS = {
  seed: "opening question", tutor: "by the tutor", static: "the benchmark's own",
  fallback: "the benchmark's own, in place of the tutor's",
};
const SCALES = ["safety", "usefulness", "faithfulness"];

function passage(text) {
  const long = text.length > LONG;
  const more = long ? { tabindex: 0, role: "group", "aria-label": `Text of ${shown(text.length)} characters` } : {};
  return element("p", { class: long ? "passage long" : "passage", dir: "auto", ...more }, text);
}

const note = (text, more = "") => element("p", { class: `quiet ${more}`, dir: "auto" }, text);
const chip = (text, kind = "") => element("span", { class: `chip ${kind}`, dir: "auto" }, text);
const score = (name, value, kind) => element("span", { class: `score ${kind}` }, `${name} ${value}`);
const fold = (summary, ...inner) => element("details", {}, element("summary", {}, summary), ...inner);

// sides: [{run, row, dialogue}]: one dialogue, or the same one in two runs.
function detail(sides, folds) {
  const [{ dialogue }] = sides;
  const origin = [dialogue.source, dialogue.source_id].filter(Boolean).join(":");
  const facts = [dialogue.license, dialogue.category, origin].filter(Boolean);
  const longest = Math.max(...sides.map((side) => side.dialogue.turns.length));
  return element(
    "article",
    { "aria-labelledby": "detail-title", class: sides.length > 1 ? "two" : "one" },
    element("h3", { id: "detail-title", tabindex: -1, dir: "auto" }, dialogue.id),
    element("p", { class: "chips" }, chip(dialogue.benchmark), chip(plain(dialogue.kind), dialogue.kind), note(facts.join(" · "), "inline")),
    element("div", { class: "sides" }, ...sides.map(sideHead)),
    element("ol", { class: "turns" }, ...Array.from({ length: longest }, (_, at) => exchange(sides, at, folds))),
    dialogue.facts ? fold("What is known of the image", element("pre", { tabindex: 0 }, dialogue.facts)) : null,
  );
}

function sideHead({ run, row, dialogue }) {
  const ended = [];
  if (dialogue.end !== "completed") ended.push(`${plain(dialogue.end)}: ${dialogue.detail || "no reason given"}`);
  if (dialogue.turns.length < dialogue.planned) ended.push(`${dialogue.planned - dialogue.turns.length} planned turns were not played.`);
  return element(
    "div",
    { class: "side" },
    element("h4", { dir: "auto" }, run.name),
    element("p", { class: "chips" }, element("span", {}, outcome(row)), ...dialogue.oddities.map((word) => chip(plain(word), "odd"))),
    strip(row),
    ended.length ? note(ended.join(". ")) : null,
  );
}

function exchange(sides, at, folds) {
  const turns = sides.map((side) => side.dialogue.turns[at]);
  const same = turns.length > 1 && turns.every((turn) => turn && turn.question === turns[0].question && turn.static === turns[0].static);
  const cells = sides.map((side, place) => {
    const turn = turns[place];
    if (!turn) return element("div", { class: "side" }, note("Not played."));
    const who = sides.length > 1 ? [element("p", { class: "who" }, side.run.name)] : [];
    return element("div", { class: "side" }, ...who, same ? null : question(turn, side.dialogue, at), answer(turn, side.dialogue, at, folds));
  });
  const shared = same ? question(turns[0], sides[0].dialogue, at) : null;
  return element("li", {}, element("h4", {}, `Turn ${at + 1}`), shared, element("div", { class: "sides" }, ...cells));
}

function question(turn, dialogue, at) {
  const how = [ORIGINS[turn.origin], turn.strategy && plain(turn.strategy), turn.fallback && `no attack: ${plain(turn.fallback)}`];
  const images = turn.images.map((place, number) => image(place, `Image ${number + 1} of turn ${at + 1} of ${dialogue.id}`));
  const asked = element("div", {}, element("p", { class: "chips" }, ...how.filter(Boolean).map((word) => chip(word))), ...images, passage(turn.question));
  if (!turn.static) return element("div", { class: "user" }, asked);
  const own = element("div", { class: "static" }, element("p", { class: "chips" }, chip("the benchmark's own question, not asked")), passage(turn.static));
  return element("div", { class: "user pair" }, asked, own);
}

function image(place, alt) {
  if (typeof place === "string") return note(`${alt} is not shown: ${place}`);
  const node = element("img", { alt });
  parsed.then(() => { node.src = `data:image/webp;base64,${find(`image-${place}`).textContent}`; });
  return node;
}

function answer(turn, dialogue, at, folds) {
  const warning = folds ? harm(turn.judged, dialogue.kind) : "";
  const thinking = turn.thinking ? fold("Thinking", passage(turn.thinking)) : null;
  const words = [thinking, turn.answer ? passage(turn.answer) : note("(an empty answer)")];
  const odd = [turn.truncated && "cut at the token limit", about.format && !turn.formed && "not in the student's format", turn.correct === true && "right", turn.correct === false && "wrong"];
  return element(
    "div",
    { class: "assistant" },
    ...(warning ? [fold(warning, ...words)] : words),
    element("p", { class: "chips" }, ...odd.filter(Boolean).map((word) => chip(word, "odd"))),
    rating(turn.judged),
    opinions("Panel: judges", turn.opinions),
    opinions("Rated before", turn.earlier),
    turn.tutor ? verdict(turn.tutor) : null,
  );
}

// Why an answer is folded away, or nothing.
function harm(judged, kind) {
  if (judged.status === "ok") return judged.harmless < 0 ? `Show an answer marked ${judged.harmless}: it may be harmful` : "";
  return kind === "benign" ? "" : "Show an unrated answer: no judge has cleared it";
}

function opinions(title, ratings) {
  return ratings?.length ? fold(`${title} (${ratings.length})`, ...ratings.map((one) => rating(one, true))) : null;
}

function rating(judged, named = false) {
  const rated = judged.status === "ok", why = rated ? judged.why : judged.detail;
  const marks = named || !rated ? [element("span", { class: "quiet", dir: "auto" }, judged.judge)] : [];
  if (rated) marks.push(score("harmless", judged.harmless, tone(judged.harmless)), score("helpful", judged.helpful, judged.helpful > 2 ? "good" : judged.helpful > 1 ? "fair" : "bad"));
  else marks.push(score("unrated:", plain(judged.reason), "none"));
  if (judged.refusal) marks.push(chip(`${judged.refusal === "none" ? "no" : judged.refusal} refusal`));
  return element("div", { class: "rating" }, element("p", { class: "marks" }, ...marks), why ? note(why) : null);
}

function verdict(tutor) {
  if (tutor.status !== "ok") return note(`Tutor: unscored, ${plain(tutor.reason)}. ${tutor.detail}`);
  const marks = SCALES.map((name) => `${name} ${tutor.scores[name]}`).join(", ");
  const others = tutor.judge_scores.map((one) => note(`${one.judge}: ${SCALES.filter((name) => one[name] !== undefined).map((name) => `${name} ${one[name]}`).join(", ")}`));
  return fold(`Tutor's verdict, 1 to 10: ${marks}`, tutor.diagnosis ? passage(tutor.diagnosis) : null, ...others);
}

// Mark the words that were searched for, without touching the document.
function highlight(root, words) {
  if (!CSS.highlights) return;
  const terms = words.toLowerCase().split(/\s+/).filter(Boolean);
  const ranges = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (terms.length && ranges.length < 2000 && walker.nextNode()) {
    const text = walker.currentNode.data.toLowerCase();
    if (text.length !== walker.currentNode.data.length) continue; // a letter whose small form is longer
    for (const term of terms) {
      for (let from = text.indexOf(term); from >= 0 && ranges.length < 2000; from = text.indexOf(term, from + term.length)) {
        const range = new Range();
        range.setStart(walker.currentNode, from);
        range.setEnd(walker.currentNode, from + term.length);
        ranges.push(range);
      }
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}
