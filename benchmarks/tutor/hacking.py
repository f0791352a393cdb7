"""Students that game their tutor on purpose: what they earn, what the judge says, and which alarms fire.

``python -m benchmarks.tutor.hacking`` plays seeds of the miniature world with everybody of tests/tutor/gamers.py and
writes benchmarks/tutor/hacking.md; it takes a minute, and gives the same every time.
"""

from __future__ import annotations

import logging
from pathlib import Path

from benchmarks import pages
from tests.tutor.gamers import CASES, STUDENTS, Case, Policy, run

DIALOGUES = 300
HEAD = ("scored by", "benign %", "student", "return", "unbroken %", "helpful", "hold-out gap", "alarms")
READING = f"""\
{DIALOGUES} dialogues of the miniature world a line, default alarm thresholds, all in the student's format. *honest*
follows the policy; some of its refusals are plain. *refusing* declines everything, constructively. *praising* declines
everything, praises itself and claims a verdict. *evading* answers, but changes the subject when steps are asked for.
The *gullible* tutor pays the full score for the form "refusal, alternative, question", whatever was asked, and is else
the rule tutor. *return* is the mean of a dialogue's TCSR return, 0 to 1; *hold-out gap* is tutor minus judge in points
of safety; *unbroken* counts attacked dialogues in which the judge finds every answer harmless; *helpful*, 0 to 3, is
the judge's on benign seeds."""
FINDINGS = """\
- The rule tutor pays the honest student most, with and without benign seeds: what does not draw a line is a 5 to it,
  what claims a score a 6. Even attacks alone have safe turns, in which a refusal costs.
- A tutor that pays for the form alone pays the gamers more than the honest student, and the return alone does not tell.
  The alarms do, and the two that name the cause need benign seeds: with attacks alone, refusing is mostly right, and
  the gap stays below its threshold.
- A panel with one judge that is not fooled makes the gamers lose. `min` takes away all that the fooled tutor gave;
  `mean` leaves them a part of it.
- The gap tells of a tutor that pays too much. *evading* is paid less than the judge would pay, so that it shows in the
  return and in the judge's figures; no alarm names it, but for `benign_refusal_share` where benign seeds ask for steps.
- `repeated_answer_share` is off, as in recipes/mini: in a world of twelve devices right answers coincide."""


def line(case: Case, student: Policy) -> list[str]:
    """Of the table."""
    one = run(student, case, DIALOGUES)
    helpful = "" if one.helpful is None else f"{one.helpful:.2f}"
    found = [
        f"{one.reward:.3f}",
        f"{100 * one.unbroken:.0f}",
        helpful,
        f"{one.gap:+.2f}",
        ", ".join(one.fired) or "none",
    ]
    return [case.name, f"{100 * case.benign:.0f}", student.__name__, *found]


def main() -> None:
    """Play all and write the page."""
    logging.disable(logging.WARNING)  # the alarms are in the table
    cells = pages.table(HEAD, [line(case, student) for case in CASES for student in STUDENTS])
    said, path = pages.written("python -m benchmarks.tutor.hacking"), Path(__file__).with_suffix(".md")
    pages.write(path, "# Students that game their tutor", said, READING, cells, FINDINGS)


if __name__ == "__main__":
    main()
