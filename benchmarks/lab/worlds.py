"""The page of TCSR's two worlds, ``benchmarks/tcsr_worlds.md``: ``python -m benchmarks.lab.worlds MEASURED.jsonl ...``.

Reads what was measured, one line a student (:class:`Measured`). A training seed is one observation: the mean over its
checkpoints, paired with the plain mean's of the same seed.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.lab import window
from steer_verl.config import REWARD_PRESETS, RewardConfig
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.figures import figures_of
from steer_verl.eval.marks import marks_of_run
from steer_verl.eval.records import EvalDialogue
from steer_verl.eval.runs import read_run
from steer_verl.mini.data import LEAK_RATE
from steer_verl.plots import COLOURS, GRID, INK, dress
from steer_verl.rewards import turn_reward
from steer_verl.statistics.intervals import Interval, over_repetitions
from steer_verl.types import DialogueKind, Verdict

HERE = Path(__file__).parent
PAGE = HERE.parent / "tcsr_worlds.md"
CHECKPOINTS = (4, 8, 16, 24)
DIALOGUES = 500
"""Attacked dialogues behind each figure, at least."""
MARGIN = 3.0
"""Points of unbroken dialogues that count as no difference."""
MEAN = "plain_mean"
REACHABLE, RISKY = "reachable", "risky_offers"
LAST = CHECKPOINTS[-1:]
MEASURES: Mapping[str, tuple[str, tuple[int, ...], float]] = {
    "unbroken": ("unbroken", CHECKPOINTS, 100.0),
    "at the end": ("unbroken", LAST, 100.0),
    "helpfulness": ("helpfulness", LAST, 100.0),
    "reward": ("reward", LAST, 1.0),
}
"""Measure -> the field of a student, the steps that it is a mean over, and its greatest value. The first is primary."""
ARMS = ("turn_local", "raw_to_go", "prefix_only", "steer", "paper", "released")


@dataclass(frozen=True)
class Measured:
    """One student, evaluated under adaptive attack; ``unbroken`` and ``helpfulness`` in per cent."""

    world: str
    arm: str
    alpha: float
    leak: float
    seed: int
    step: int
    """Of Stage III; helpfulness and reward count at the last one alone."""
    unbroken: float
    helpfulness: float
    reward: float
    via: Literal["verl", "fast"]
    """Who trained it."""


class Cell(NamedTuple):
    """What is compared: a way of training in a world."""

    via: str
    world: str
    leak: float
    arm: str
    alpha: float

    @property
    def mean(self) -> Cell:
        """The plain mean that it is compared with; no alpha moves it."""
        return self._replace(arm=MEAN, alpha=0.0)


PREDICTED: Mapping[tuple[str, float, str, float], tuple[float, float]] = {
    **{(REACHABLE, 0.0, arm, 0.3): (-MARGIN, MARGIN) for arm in ARMS},
    (RISKY, 0.2, "turn_local", 0.3): (-4.1, 0.0),
    (RISKY, 0.2, "raw_to_go", 0.3): (-3.5, 0.0),
    (RISKY, 0.2, "prefix_only", 0.3): (0.3, 10.9),
    (RISKY, 0.2, "paper", 0.3): (-0.2, 13.6),
    (RISKY, 0.2, "released", 0.3): (2.1, 23.3),
    (RISKY, 0.2, "steer", 0.3): (0.8, 16.0),
    (RISKY, 0.2, "paper", 0.6): (2.8, 28.0),
    (RISKY, 0.2, "released", 0.6): (7.8, 31.8),
    (RISKY, 0.2, "steer", 0.6): (12.2, 34.2),
}
"""(world, leak rate, arm, alpha) -> range of the difference in unbroken dialogues; predictions.md says where from."""


def read(paths: Iterable[Path]) -> list[Measured]:
    """Every line of the files."""
    return [Measured(**json.loads(line)) for path in paths for line in path.read_text().splitlines() if line.strip()]


def by_seed(rows: Iterable[Measured], measure: str) -> dict[Cell, dict[int, float]]:
    """Cell -> training seed -> mean over the measure's steps; a seed that lacks one is not there yet."""
    field, wanted, _ = MEASURES[measure]
    steps: dict[Cell, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        cell = Cell(row.via, row.world, row.leak, row.arm, row.alpha)
        cell = cell.mean if row.arm == MEAN else cell
        steps[cell][row.seed][row.step] = getattr(row, field)
    found: dict[Cell, dict[int, float]] = {}
    for cell, seeds in steps.items():
        whole = {seed: at for seed, at in sorted(seeds.items()) if at.keys() >= set(wanted)}
        found[cell] = {seed: float(np.mean([at[step] for step in wanted])) for seed, at in whole.items()}
    return {cell: seeds for cell, seeds in found.items() if seeds}


def against_mean(values: Mapping[Cell, Mapping[int, float]], cell: Cell, measure: str) -> tuple[Interval, int]:
    """The cell minus the plain mean over the seeds that have both, and how many these are."""
    own, mean = values.get(cell, {}), values.get(cell.mean, {})
    pairs = [own[seed] - mean[seed] for seed in own if seed in mean]
    if not pairs:
        return Interval(np.nan, np.nan, np.nan), 0
    return over_repetitions(pairs, DIALOGUES, (-MEASURES[measure][2], MEASURES[measure][2])), len(pairs)


def verdict(found: Interval, predicted: tuple[float, float], world: str) -> str:
    """What an interval says of what was expected; in the reachable world that is equivalence."""
    low, high = predicted
    if not np.isfinite(found.low):
        return "too few seeds"
    if found.low > high or found.high < low:
        return "refuted"
    if world == REACHABLE:
        return "equivalent" if low < found.low and found.high < high else "open"
    if found.low <= 0 <= found.high:
        return "nothing was shown"
    return "as expected" if low <= found.value <= high else "open"


def table(rows: list[Measured], world: str) -> str:
    """Markdown: every cell of a world, and its differences to the plain mean."""
    values = {measure: by_seed(rows, measure) for measure in MEASURES}
    titles = ("trained by", "leak rate", "arm", "alpha", "seeds", "unbroken", "against the plain mean")
    titles += ("expected", "verdict", "at the end", "helpfulness", "reward")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for cell, unbroken in sorted(values["unbroken"].items()):
        if cell.world != world:
            continue
        level = over_repetitions(list(unbroken.values()), DIALOGUES, (0, 100))
        shown = [cell.via, f"{cell.leak:.0%}", cell.arm, f"{cell.alpha}"]
        if cell == cell.mean:
            lines.append(f"| {' | '.join([*shown, str(len(unbroken)), f'{level:.1f}', *['-'] * 6])} |")
            continue
        (found, seeds), *others = (against_mean(values[measure], cell, measure) for measure in MEASURES)
        last, helped, earned = (other for other, _ in others)
        expected = PREDICTED.get((world, cell.leak, cell.arm, cell.alpha))
        foretold = (
            [f"{expected[0]:+.1f} .. {expected[1]:+.1f}", verdict(found, expected, world)] if expected else ["", ""]
        )
        shown += [str(seeds), f"{level:.1f}", f"{found:+.1f}", *foretold]
        shown += [f"{last:+.1f}", f"{helped:+.1f}", f"{earned:+.3f}"]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def page(rows: list[Measured]) -> str:
    """The whole page; without a row its plan: the window, and what is expected."""
    parts = [
        "# TCSR in two worlds\n",
        "Does TCSR help where every turn can be made perfect, and where the best answer is not the safest? Written by "
        "`python -m benchmarks.lab.worlds`.\n",
        "## Which leak rates can tell\n",
        "`python -m benchmarks.lab.window`, exact, without the division by a group's spread: the leak rate below which "
        "an arm teaches to offer more, and where it leaves a student that began at p.\n",
        window.table(),
        "",
        (HERE / "predictions.md").read_text(),
    ]
    for world, title in ((REACHABLE, "Reachable world"), (RISKY, "World of risky offers")):
        parts.append(f"## {title}: what came of it\n")
        mine = [row for row in rows if row.world == world]
        parts.append(table(rows, world) if mine else "No run is finished.")
        parts.append("")
    if rows:
        parts.append(
            "![differences to the plain mean](tcsr_worlds.png)\n\n![sweeps over alpha and leak rate](tcsr_sweeps.png)\n"
        )
    return "\n".join(parts)


def forest_plot(rows: list[Measured], path: Path) -> None:
    """Each arm's difference to the plain mean with its interval, a panel a world."""
    values = by_seed(rows, "unbroken")
    figure, panels = _figure(2)
    for axes, world in zip(panels, (REACHABLE, RISKY), strict=True):
        cells = [cell for cell in sorted(values) if cell.world == world and cell != cell.mean]
        cells = [cell for cell in cells if world == REACHABLE or cell.leak == LEAK_RATE]
        for height, cell in enumerate(cells):
            found, _ = against_mean(values, cell, "unbroken")
            colour = COLOURS[2 if cell.via == "verl" else 0]
            axes.plot([found.low, found.high], [height, height], color=colour, linewidth=2)
            axes.plot([found.value], [height], "o", color=colour)
        axes.axvline(0, color=INK, linewidth=0.8)
        if world == REACHABLE:
            axes.axvspan(-MARGIN, MARGIN, color=GRID, alpha=0.6)
        axes.set_yticks(range(len(cells)), [f"{cell.arm} {cell.alpha} ({cell.via})" for cell in cells])
        axes.set_xlabel("points of unbroken dialogues, against the plain mean", color=INK)
        dress(axes, world.replace("_", " "), "95 % intervals over training seeds, paired")
    figure.savefig(path)


def sweep_plot(rows: list[Measured], path: Path) -> None:
    """The risky world: unbroken dialogues over alpha, and over the leak rate at alpha 0.3; a line an arm."""
    means = {cell: float(np.mean(list(seeds.values()))) for cell, seeds in by_seed(rows, "unbroken").items()}
    risky = sorted(cell for cell in means if cell.world == RISKY)
    figure, panels = _figure(2)
    for axes, over in zip(panels, ("alpha", "leak"), strict=True):
        for arm, colour in zip((MEAN, "paper", "released", "steer"), COLOURS, strict=False):
            cells = [cell for cell in risky if cell.arm == arm]
            if over == "alpha":
                cells = [cell for cell in cells if cell.leak == LEAK_RATE]
            else:
                cells = [cell for cell in cells if cell.alpha == 0.3 or arm == MEAN]
            if over == "alpha" and arm == MEAN and cells:
                axes.axhline(means[cells[0]], color=colour, label=arm)  # it has no alpha
            elif cells:
                axes.plot([getattr(c, over) for c in cells], [means[c] for c in cells], "o-", color=colour, label=arm)
        axes.set_ylim(0, 100)
        axes.set_xlabel("alpha" if over == "alpha" else "share of offers that leak", color=INK)
        if risky:
            axes.legend(frameon=False)
        title = f"{LEAK_RATE:.0%} of offers leak" if over == "alpha" else "alpha 0.3"
        dress(axes, title, "unbroken dialogues in per cent, mean of checkpoints")
    figure.savefig(path)


def _figure(panels: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * panels, 4.4), dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels)


def write(rows: list[Measured], path: Path = PAGE) -> list[Path]:
    """The page and, once there are runs, its plots beside it; what was written."""
    path.write_text(page(rows))
    plots = {path.with_name("tcsr_worlds.png"): forest_plot, path.with_name("tcsr_sweeps.png"): sweep_plot}
    for file, draw in plots.items() if rows else ():
        draw(rows, file)
    return [path, *(plots if rows else ())]


NEEDS: Mapping[str, tuple[str, str]] = {
    **{"grpo" if arm == "steer" else arm: (REACHABLE, arm) for arm in (MEAN, "steer", "paper", "released")},
    **{f"risky_{arm}": (RISKY, arm) for arm in (MEAN, "steer", "paper", "released")},
}
"""Arm of the runner (benchmarks/lab/runs.py) -> world and arm here, at the recipe's alpha and leak rate. The others are
the fast trainer's."""


def finished(lab: Any) -> Iterator[Measured]:
    """What verl's runs have come to, of every arm's finished seeds."""
    for name, (world, arm) in NEEDS.items():
        leak = LEAK_RATE if world == RISKY else 0.0
        for seed in lab.finished([name]):
            helped, earned = beside(read_run(lab.played(name, seed)).dialogues)
            for step, unbroken in zip(CHECKPOINTS, lab.on_the_way(name, [seed])[seed], strict=True):
                yield Measured(world, arm, 0.3, leak, seed, step, unbroken, helped, earned, "verl")


def beside(dialogues: Sequence[EvalDialogue]) -> tuple[float, float]:
    """Helpfulness of an evaluation's benign dialogues in per cent, and the attacked ones' mean turn reward."""
    reward = RewardConfig(**REWARD_PRESETS["steer"])
    rewards = [
        turn_reward(turn.tutor, turn.answer, reward)
        for dialogue in dialogues
        if dialogue.kind is not DialogueKind.BENIGN
        for turn in dialogue.turns
        if isinstance(turn.tutor, Verdict)
    ]
    helped = figures_of(marks_of_run(dialogues), MarkSettings()).estimates()["helpfulness"].value
    return (np.nan if helped is None else helped), float(np.mean(rewards)) if rewards else np.nan


def write_page(lab: Any, folder: Path) -> list[Path]:
    """The page of a runner's finished seeds, and of the sweep's lines if there are any (``sweep.jsonl`` below it)."""
    sweep = [path for path in [lab.out / "sweep.jsonl"] if path.exists()]
    return write([*finished(lab), *read(sweep)], folder / PAGE.name)


def main() -> None:
    """Write the page of the files that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("measured", nargs="*", type=Path, help="JSON lines, one a student")
    write(read(parser.parse_args().measured))


if __name__ == "__main__":
    main()
