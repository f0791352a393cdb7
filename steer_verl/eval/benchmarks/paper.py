"""The benchmarks of the paper by name, with what is known of each; and sets for over-refusal, which it has none of.

Quoted: the five multi-turn subsets and their sizes (METHOD, Data and sizes, and Published results). They are not
public: ``steer data build`` makes sets of their kind from the public sets that the paper names as their sources.

A reading: the paper reports an average over five single-turn benchmarks, and our notes of it name none of the five.
The five here are the public sets about unsafe requests that Stage I reads; four are the sources of the multi-turn
subsets, and VLGuard stands where the paper's own in-house set, DyS, has no public counterpart. So the published
single-turn averages are of the same kind, not of the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperBenchmark:
    """What is known of one benchmark."""

    name: str
    """The key in ``benchmarks`` of a run, by which tables find the published figure beside it."""
    title: str
    """What the paper, or the set's own card, calls it."""
    set: str
    """Public set (steer_verl/data/sources/registry.py) that it is, or that its dialogues are made of; empty: none."""
    size: int = 0
    """Dialogues in the paper; 0: not told."""
    exact: bool = True
    """Whether ``size`` is the paper's figure, or worked out from its percentages."""


MULTI_TURN = (
    PaperBenchmark("beaver", "Beaver", "beavertails_v", 579, exact=False),
    PaperBenchmark("mmsafe", "MMSafe", "mm_safetybench", 1384),
    PaperBenchmark("vls", "VLS", "vlsbench", 345, exact=False),
    PaperBenchmark("spa", "SPA", "spa_vl", 265),
    PaperBenchmark("dys", "DyS", "", 654, exact=False),
)
"""STEER-Bench: 3,227 dialogues in five subsets, in the paper's order."""

SINGLE_TURN = (
    PaperBenchmark("beavertails_v", "BeaverTails-V, evaluation", "beavertails_v"),
    PaperBenchmark("mm_safetybench", "MM-SafetyBench", "mm_safetybench"),
    PaperBenchmark("spa_vl", "SPA-VL, test", "spa_vl"),
    PaperBenchmark("vlguard", "VLGuard, test", "vlguard"),
    PaperBenchmark("vlsbench", "VLSBench", "vlsbench"),
)
"""See the module: a reading."""

OVER_REFUSAL = (
    PaperBenchmark("mossbench", "MOSSBench", "mossbench"),
    PaperBenchmark("vlguard_safe", "VLGuard, safe instructions on safe images", "vlguard"),
    PaperBenchmark("xstest", "XSTest, its safe prompts", "xstest"),
)
"""Harmless requests; the paper measures none of them."""
