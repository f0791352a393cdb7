"""The static part of the browser of dialogues: its form, its two panes, its help. The scripts fill it."""

from __future__ import annotations

from steer_verl.data.cards.markup import Html, tag

CHOICES: dict[str, tuple[str, dict[str, str]]] = {
    "run": ("Run", {}),
    "other": ("Compare with", {"": "nothing"}),
    "against": (
        "Against that one",
        {"": "any", "worse": "fails earlier", "better": "fails later or never", "same": "fails at the same turn"},
    ),
    "outcome": (
        "Outcome",
        {
            "": "any",
            "failed": "fails",
            "refused": "over-refuses",
            "missing": "unrated or unplayed",
            "held": "no fault",
        },
    ),
    "benchmark": ("Benchmark", {"": "any"}),
    "first": ("First failure", {"": "any turn"}),
    "strategy": ("Strategy", {"": "any"}),
    "source": ("Source", {"": "any"}),
    "kind": ("Kind", {"": "any"}),
    "refusal": ("Refusal", {"": "any"}),
    "unrated": ("Unrated because", {"": "any"}),
    "oddity": ("Odd row", {"": "any"}),
    "end": ("End", {"": "any"}),
    "order": ("Order", {"failures": "failures first", "lowest": "lowest mark first", "id": "by id"}),
}
"""Field -> its label and its fixed choices; filters.js adds the values that occur."""

KEYS = {
    "/": "search",
    "j, k or arrows": "next and previous dialogue; Page Up, Page Down, Home, End in the list",
    "Enter": "from the search to the list, from the list to the dialogue",
    "Esc": "back to the list",
    "f": "fold passages that may be harmful, or show them",
    "?": "this help",
}


def browser() -> Html:
    """Form, list, detail, help."""
    return tag("div", _form(), _panes(), _help(), tag("noscript", "This part needs scripts."), id="dialogues-browser")


def _form() -> Html:
    words = tag("input", type="search", name="words", autocomplete="off", spellcheck="false")
    box = tag("input", type="checkbox", name="fold", value="1")
    help_button = tag("button", "Keys ", tag("kbd", "?"), type="button", id="help-open")
    top = tag(
        "div",
        tag("label", tag("span", "Search all that was said"), words, class_="words-field"),
        tag("label", box, "Fold what may be harmful", class_="check"),
        help_button,
        class_="search-row",
    )
    clear = tag("button", "Clear", type="button", id="clear")
    selects = tag("div", *(_select(name, *choice) for name, choice in CHOICES.items()), clear, class_="fields")
    more = tag("details", tag("summary", "Filters", tag("span", id="set")), selects, id="more")
    return tag("form", top, more, id="filters", role="search", aria_label="Dialogues", autocomplete="off")


def _select(name: str, label: str, choices: dict[str, str]) -> Html:
    options = [tag("option", text, value=value) for value, text in choices.items()]
    return tag("label", tag("span", label), tag("select", *options, name=name))


def _panes() -> Html:
    count = tag("p", "Unpacking ...", id="count", role="status")
    nothing = tag("p", "No dialogue passes these filters.", id="nothing", hidden=True)
    box = tag("div", id="list", role="listbox", tabindex=0, aria_label="Dialogues")
    listed = tag("div", count, nothing, box, class_="list-pane")
    hint = tag("p", "Choose a dialogue on the list.", class_="quiet")
    back = tag("button", "Back to the list", type="button", id="back")
    said = tag("p", id="said", role="status", class_="unseen")
    shown = tag("div", back, said, tag("div", hint, id="detail"), id="pane", role="region", aria_label="Dialogue")
    return tag("div", listed, shown, class_="panes")


def _help() -> Html:
    rows = [tag("div", tag("dt", tag("kbd", key)), tag("dd", what)) for key, what in KEYS.items()]
    close = tag("form", tag("button", "Close"), method="dialog")
    return tag(
        "dialog", tag("h3", "Keys", id="help-title"), tag("dl", *rows), close, id="help", aria_labelledby="help-title"
    )
