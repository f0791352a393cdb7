"""TCSR against verl's own GRPO estimator on the paper's batch of 320 dialogues, at 2,560, 5,120 and 10,240 tokens each.

Batch and clock are those of ``benchmarks/gpu/estimator.py``: dialogues of 4 to 8 turns, the runs taken in turns after a
warm-up, medians; here on the CPU, where verl's V1 trainer computes advantages. Of our presets the slowest counts. A
shorter batch is the longest one's first tokens, so fewer turns fit into it: what is compared is the time of a token.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu import estimator
from benchmarks.rollout.row import Row

LENGTHS = (estimator.TOKENS // 4, estimator.TOKENS // 2, estimator.TOKENS)
OTHER = "verl grpo"
DEMAND = 2.0
"""Times verl's time, at most."""
LINEAR = 1.25
"""Time of a token in the longest batch, over that in the shortest, at most."""

Times = Mapping[int, Mapping[str, float]]
"""Tokens of a dialogue -> estimator -> median milliseconds."""


def slowest(times: Mapping[str, float]) -> float:
    """Milliseconds of the slowest of our presets."""
    return max(ms for name, ms in times.items() if name != OTHER)


def rows(times: Times, dialogues: int) -> list[Row]:
    """The ratio at the longest batch, and what a token costs there and in the shortest."""
    short, long = min(times), max(times)
    ours, other = slowest(times[long]), times[long][OTHER]
    token = {tokens: 1e6 * slowest(times[tokens]) / (dialogues * tokens) for tokens in (short, long)}
    return [
        Row(
            what=f"advantages of {dialogues} x {long} tokens",
            unit="ms",
            ours=ours,
            other=other,
            demand=f"ratio <= {DEMAND:g}",
            met=ours <= DEMAND * other,
            other_is="verl's GRPO estimator",
        ),
        Row(
            what=f"TCSR's time per token at {long} tokens, linear in tokens",
            unit="ns",
            ours=token[long],
            other=token[short],
            demand=f"ratio <= {LINEAR:g}",
            met=token[long] <= LINEAR * token[short],
            other_is=f"at {short} tokens",
        ),
    ]


def notes(times: Times, threads: int) -> list[str]:
    """Every preset's time."""
    told = [
        f"{tokens} tokens: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in found.items())
        for tokens, found in times.items()
    ]
    return [f"estimator, {threads} thread{'s' * (threads > 1)}: " + "; ".join(told)]


def measure(
    *, dialogues: int = estimator.DIALOGUES, lengths: Sequence[int] = LENGTHS, repeats: int = 15
) -> dict[str, Any]:
    """Rows, notes and ``times``: tokens -> estimator -> median milliseconds."""
    times, threads = {}, 1
    for tokens in lengths:
        found = estimator.measure(("cpu",), dialogues=dialogues, tokens=tokens, repeats=repeats)
        times[tokens] = {row["estimator"]: row["ms"] for row in found["rows"]}
        threads = found["threads"]
    return {
        "rows": [row.as_dict() for row in rows(times, dialogues)],
        "notes": notes(times, threads),
        "times": {str(tokens): dict(found) for tokens, found in times.items()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each estimator at each length")
    print(json.dumps(measure(repeats=parser.parse_args().repeats)))
