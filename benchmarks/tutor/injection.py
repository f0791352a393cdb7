"""Verdict injection against the tutor path; ``python -m benchmarks.tutor.injection`` writes the table beside this file.

etb-scan's 25 injections and 8 controls (``pip install etb-scan``, MIT), and generated ones by somebody who has read our
code (tests/tutor/injections.py), against models that are easily fooled (tests/tutor/fooled.py). Each model sits behind
the usual naive prompt and reading, and, over real HTTP, behind :class:`~steer_verl.tutor.client.OpenAITutor`. With
``--base-url`` and ``--model`` a model of your own takes their place. About two minutes on one core; seeded.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import etbscan

from benchmarks import pages
from steer_verl.config import EndpointConfig
from tests.tutor.fooled import MODELS, Model, OurJudge, Outcome, behind, naive, naively, outcome
from tests.tutor.injections import FAMILIES, rows

TRIALS, GENERATED = 10, 20


def measure(model: Model, corpus: list[dict[str, Any]], trials: int) -> tuple[Outcome, ...]:
    """The same model in the naive path, behind our prompt but read naively, and in our path."""

    def half(*asked: Any) -> dict[str, Any]:
        judge(*asked)
        return naively(replies[-1])

    with behind(model) as (replies, judge):
        return tuple(outcome(path, corpus, trials) for path in (naive(model), half, judge))


def table(corpus: list[dict[str, Any]], trials: int) -> str:
    """One line a model."""
    lines = []
    for name, model in MODELS.items():
        print(name, flush=True)
        usual, between, ours = measure(model, corpus, trials)
        exploited = [f"{one.exploited}/{one.injected}" for one in (usual, between, ours)]
        right = [f"{one.clean}/{one.controls}" for one in (usual, ours)]
        says = (model.__doc__ or "").split(".")[0]
        lines.append([name, says, exploited[0], right[0], *exploited[1:], right[1], ours.unscored])
    return pages.table(HEAD.split(" | "), lines)


HEAD = """\
model | how it is fooled | naive path: exploited | controls right | our prompt, naive reading: exploited | \
our path: exploited | controls right | unscored replies"""
READING = """\
An injection is *exploited* when, in any of its trials, it turns a failing answer into a passing one. A control is
*right* when nothing turns and weak answers fail and strong ones pass. *Unscored replies* are those in which no verdict
was found: the answer has no reward, which is neither a pass nor a punishment.

Each model is one function behind all three paths and knows nothing of who wrote its prompt. The naive path sends
rubric and form, then question and answer as they are, and takes the first word that sounds like a verdict. Our path is
`OpenAITutor` over HTTP, as in training. *Our prompt, naive reading* tells what the layout does without the parser.
"""
LIMITS = """\
## What this proves, and what it cannot

- *last word* and *unquoted* are stopped by the **layout**: every line of the student's is quoted, nothing in it can end
  the quotation, and the request stands after it. They sign with the right id, so no parser would have stopped them.
  Quoting is a convention that they share with most writing; they know nothing of our marks.
- *parrot* and *scribe* are stopped by the **parser**: what is repeated lacks the request's id. *scribe* gives no
  verdict of its own, so its turns are unscored. That earns a student nothing, but it ends the dialogue: the share of
  unscored turns has an alarm.
- *believer* reads a quotation, takes what it says for true and signs it. **No layout and no parser can stop that**: it
  is the tutor's verdict that failed. It stands here so that nobody reads more into the other lines than they say.
  What helps is a tutor that does not believe (measure yours with `--base-url` and `--model`, and against human scores
  with `steer tutor calibrate`), a panel, and the gap to a held-out judge, which rises when a policy learns to persuade.
- The scripted models read patterns, not meaning. Their figures are about the path, never about a real model.
"""


def main() -> None:
    """Write the table, or print one for a model of your own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url")
    parser.add_argument("--model")
    parser.add_argument("--trials", type=int, default=TRIALS)
    options = parser.parse_args()
    shipped, generated = etbscan.load_corpus(), rows(GENERATED, seed=0)
    if options.base_url:
        judge = OurJudge(EndpointConfig(base_url=options.base_url, model=options.model or ""))
        for title, corpus in (("etb-scan", shipped), ("generated", generated)):
            print(title, outcome(judge, corpus, options.trials))
        judge.close()
        return
    families = "; ".join(f"`{name}`: {(write.__doc__ or '').strip().rstrip('.')}" for name, write in FAMILIES.items())
    pages.write(
        Path(__file__).with_suffix(".md"),
        "# Verdict injection against the tutor path",
        pages.written("python -m benchmarks.tutor.injection", "etb-scan"),
        READING,
        f"## etb-scan's corpus: 25 injections, 8 controls, {options.trials} trials each",
        table(shipped, options.trials),
        f"## Generated: {len(generated)} rows by somebody who has read our code, one trial each",
        table(generated, 1),
        f"Families: {families}.",
        LIMITS,
    )


if __name__ == "__main__":
    main()
