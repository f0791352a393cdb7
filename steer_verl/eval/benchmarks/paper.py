"""The benchmarks of the paper by name, with what is known of each; and sets for over-refusal, which it has none of.

Multi-turn: five subsets (their sizes: steer_verl/eval/published.json). They are not public: ``steer data build`` makes
sets of their kind from the public sets that the paper names as their sources; DyS is in-house and has no public source.

Single-turn: five public sets, by name. Which split and which rows of each the paper takes is not told: the recipe
(recipes/eval/single_turn.yaml) takes the unsafe rows of each set's own test.
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


MULTI_TURN = (
    PaperBenchmark("beaver", "Beaver", "beavertails_v"),
    PaperBenchmark("mmsafe", "MMSafe", "mm_safetybench"),
    PaperBenchmark("vls", "VLS", "vlsbench"),
    PaperBenchmark("spa", "SPA", "spa_vl"),
    PaperBenchmark("dys", "DyS", ""),
)
"""STEER-Bench, in the paper's order."""

SINGLE_TURN = (
    PaperBenchmark("beavertails_v", "BeaverTails-V", "beavertails_v"),
    PaperBenchmark("mm_safetybench", "MM-SafetyBench", "mm_safetybench"),
    PaperBenchmark("spa_vl", "SPA-VL", "spa_vl"),
    PaperBenchmark("vlguard", "VLGuard", "vlguard"),
    PaperBenchmark("vlsbench", "VLSBench", "vlsbench"),
)
"""In the paper's order."""

OVER_REFUSAL = (
    PaperBenchmark("mossbench", "MOSSBench", "mossbench"),
    PaperBenchmark("vlguard_safe", "VLGuard, safe instructions on safe images", "vlguard"),
    PaperBenchmark("xstest", "XSTest, its safe prompts", "xstest"),
)
"""Harmless requests; the paper measures none of them."""
