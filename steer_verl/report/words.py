"""What tables call the dialogues of a run, all of them or those of one benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from steer_verl.eval.shape import Subset, Summary

ALL = "all dialogues"
"""The dialogues of all benchmarks together."""


def subsets(summaries: Sequence[Summary]) -> list[str]:
    """:data:`ALL` if there are several benchmarks, then every benchmark of any run."""
    names = list(dict.fromkeys(name for summary in summaries for name in summary.benchmarks))
    return [ALL, *names] if len(names) > 1 else names


def subset_of(summary: Summary, name: str) -> Subset | None:
    """One benchmark of a run, or all of its dialogues; ``None``: it was not given that benchmark."""
    return summary.all if name == ALL else summary.benchmarks.get(name)
