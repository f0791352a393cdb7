"""The steps that verl logged -> the figures of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from steer_verl.report.training import Step

PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights")
"""The parts of a step that verl times (trainer/ppo/v1/trainer_base.py:562-612, trainer_sync.py:36)."""
OTHER = "other"


def counted(steps: Sequence[Step]) -> list[Step]:
    """The steps after the first, which compiles and warms up; none when there is no other."""
    return [step for step in steps if step.get("step", 0) > 1]


def phases(steps: Sequence[Step]) -> dict[str, float]:
    """Mean seconds of each phase of a step, and of what lies between them (``other``), over ``steps``."""
    if not steps:
        return {}
    means = {name: mean for name in PHASES if (mean := _mean(steps, f"timing_s/{name}")) is not None}
    whole = fmean(step["timing_s/step"] for step in steps)
    return {**means, OTHER: max(whole - sum(means.values()), 0.0)}


def summary(steps: Sequence[Step]) -> dict[str, float]:
    """The figures of the page by title; one that verl did not log is absent. Memory is the peak, the rest means."""
    if not steps:
        return {}
    found = {
        "step (s)": _mean(steps, "timing_s/step"),
        "tokens a step": _mean(steps, "perf/total_num_tokens"),
        "tokens/s, whole step": _mean(steps, "perf/throughput"),
        "student's own tokens/s while generating": _mean_of([_written(step) for step in steps]),
        "MFU of the update": _mean(steps, "perf/mfu/actor"),
        "actor, allocated (GiB)": _peak(steps, "actor/perf/max_memory_allocated_gb"),
        "actor, reserved (GiB)": _peak(steps, "actor/perf/max_memory_reserved_gb"),
        "card, all processes (GiB)": _peak(steps, "card/memory_gb"),
        "host (GiB)": _peak(steps, "actor/perf/cpu_memory_used_gb"),
        "student engine idle, share of the step": _mean(steps, "steer/engine_idle_share"),
        "student engine asleep, share of the step": _mean_of([_asleep(step) for step in steps]),
        "card without a kernel, share of the step": _mean_of([_without_kernel(step) for step in steps]),
        "turns a dialogue": _mean_of([_ratio(step, "steer/total_turns", "steer/total_dialogues") for step in steps]),
        "tokens an answer": _mean(steps, "steer/answer_tokens"),
        "rollout and actor, correlation of probabilities": _mean(steps, "training/rollout_actor_probs_pearson_corr"),
    }
    return {title: value for title, value in found.items() if value is not None and math.isfinite(value)}


def _written(step: Mapping[str, float]) -> float | None:
    tokens = step.get("steer/total_turns", math.nan) * step.get("steer/answer_tokens", math.nan)
    return tokens / step["timing_s/gen"] if step.get("timing_s/gen") else None


def _asleep(step: Mapping[str, float]) -> float | None:
    """The engine gives its memory back from the end of generation to the weights' update (sync mode)."""
    share = _ratio(step, "timing_s/gen", "timing_s/step")
    return None if share is None else 1 - share


def _without_kernel(step: Mapping[str, float]) -> float | None:
    return 1 - step["card/busy"] if "card/busy" in step else None


def _ratio(step: Mapping[str, float], above: str, below: str) -> float | None:
    return step[above] / step[below] if above in step and step.get(below) else None


def _mean(steps: Sequence[Step], name: str) -> float | None:
    return _mean_of([step.get(name) for step in steps])


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _peak(steps: Sequence[Step], name: str) -> float | None:
    return max((step[name] for step in steps if name in step), default=None)
