"""Where the time goes: the ten largest costs, with their owners, of a simulated step and of a real one.

The simulated step: 320 dialogues of 8 turns in one of verl's workers in this process, by cProfile; so the seconds are
the profiler's, a good half more than without it, and only their shares count. The real one: two steps of the mini
recipe's GRPO by verl's own trainer, by verl's own clocks and our dashboard.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import re
import sysconfig
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import mini_grpo
from benchmarks.rollout.lab import Lab
from benchmarks.rollout.pace import Pace

ROOT = str(Path(__file__).resolve().parents[2])
STDLIB = sysconfig.get_path("stdlib")
STEPS = 3
OWNERS = (
    (r"site-packages/(verl|transfer_queue)/", "verl"),
    (r"site-packages/ray/", "Ray"),
    (r"site-packages/(transformers|tokenizers|huggingface_hub|jinja2)/", "transformers"),
    (r"site-packages/(torch|tensordict|numpy)/", "torch"),
    (r"site-packages/(hydra|omegaconf|antlr4)/", "Hydra"),
    (r"site-packages/(pydantic|pydantic_core)/", "ours, in pydantic"),
    (r"/benchmarks/", "the benchmark"),
    (rf"{re.escape(ROOT)}/(rollout|steer_verl|reward_fns)/", "ours"),
)


def simulated(lab: Lab, prompts: int) -> list[dict[str, Any]]:
    """The ten functions with the largest own time in the loop's thread."""
    worker = lab.worker("steer_dialogue", Pace(), near=True)
    asyncio.run(worker.play(lab.rows(1)))
    profile, rows = cProfile.Profile(), lab.rows(prompts)
    profile.runcall(asyncio.run, worker.play(rows))
    spent: dict[tuple[str, str], float] = defaultdict(float)
    for (path, _, function), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if function in {"<method 'poll' of 'select.epoll' objects>", "<method 'acquire' of '_thread.lock' objects>"}:
            continue
        if path == "~":  # a builtin belongs to who called it
            for (called_from, _, _), (_, _, part, _) in callers.items():
                spent[_owner(called_from), _name(called_from)] += part
        else:
            spent[_owner(path), _name(path)] += own
    total = sum(spent.values())
    largest = sorted(spent.items(), key=lambda item: -item[1])[:10]
    return [{"owner": owner, "what": name, "share": seconds / total} for (owner, name), seconds in largest]


def real(folder: Path) -> list[dict[str, Any]]:
    """Phases of a mini GRPO step after the first, with the rollout split by our dashboard."""
    steps = mini_grpo.run(folder, STEPS, "trainer.save_freq=-1")[1:]
    whole = fmean(step["timing_s/step"] for step in steps)
    parts = {name: fmean(step.get(f"timing_s/{name}", 0.0) for step in steps) for name in PHASES}
    idle = fmean(step["steer/engine_idle_share_rollout"] for step in steps)
    found = [
        ("vLLM", "rollout: the student's engine answers", parts["gen"] * (1 - idle)),
        (
            "verl, tutor and ours",
            "rollout: the engine idles (start, tutor, tokens, rewards, the queue)",
            parts["gen"] * idle,
        ),
        *((owner, what, parts[name]) for name, (owner, what) in PHASES.items() if name != "gen"),
        ("verl", "the rest of the step: data, metrics, logging", whole - sum(parts.values())),
    ]
    return [{"owner": owner, "what": what, "share": s / whole} for owner, what, s in sorted(found, key=lambda f: -f[2])]


PHASES = {
    "gen": ("", ""),
    "update_actor": ("verl, in torch", "update of the actor"),
    "old_log_prob": ("verl, in torch", "log-probabilities of the rollout"),
    "ref": ("verl, in torch", "log-probabilities of the reference"),
    "update_weights": ("verl", "weights to the engine"),
    "adv": ("ours", "advantages: TCSR"),
}
"""verl's clock -> owner and what it is."""


def measure(folder: Path) -> dict[str, Any]:
    """Both lists."""
    lab = Lab(folder, (512, 512))
    with lab.running():
        listed = simulated(lab, 64)
    return {"rows": [], "simulated": listed, "real": real(folder / "grpo"), "notes": []}


def _owner(path: str) -> str:
    return next((owner for pattern, owner in OWNERS if re.search(pattern, path)), "Python")


def _name(path: str) -> str:
    return path.rpartition("site-packages/")[2].removeprefix(f"{ROOT}/").removeprefix(f"{STDLIB}/")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch))))
