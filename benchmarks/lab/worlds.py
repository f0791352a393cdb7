"""tcsr_worlds.md: TCSR's settings in two worlds, beside what was predicted.

A training seed is one observation: the mean over its checkpoints, paired with the plain mean's that began at the same
student.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.lab import page, window
from benchmarks.lab.arms import ALPHAS, CELLS, REACHABLE, RISKY, SETTINGS, SHAPED, Cell
from benchmarks.lab.runs import Lab
from benchmarks.pages import table, write
from steer_verl.mini.data import LEAK_RATE
from steer_verl.plots import COLOURS, INK, dress, forest_plot, sheet
from steer_verl.statistics.intervals import UNDEFINED, Interval

NEEDS = tuple(CELLS)
MARKED = False

MARGIN = 3.0
"""Points of unbroken dialogues that count as no difference."""
MEASURES: Mapping[str, tuple[str, bool, float]] = {
    "unbroken": ("unbroken", False, 100.0),
    "at the end": ("unbroken", True, 100.0),
    "helpfulness": ("helpfulness", True, 100.0),
    "reward": ("reward", True, 1.0),
}
"""Measure -> the figure of a student, whether it is the last checkpoint's alone or a mean over all, and its greatest
value. The first is primary."""

ENOUGH = 8
"""Training seeds that the predictions speak of."""

Begun = tuple[int, str]
"""A training seed, and the student that Stage II made of it: another one under other instructions."""
Students = Mapping[Cell, Mapping[Begun, Mapping[int, Mapping[str, float]]]]
"""Cell -> what it began at -> checkpoint -> figures of the student."""

PREDICTED: Mapping[tuple[str, float, str, float], tuple[float, float]] = {
    **{(REACHABLE, 0.0, arm, 0.3): (-MARGIN, MARGIN) for arm in SETTINGS},
    (RISKY, 0.2, "turn_local", 0.3): (-4.1, 0.0),
    (RISKY, 0.2, "raw_to_go", 0.3): (-3.5, 0.0),
    (RISKY, 0.2, "prefix_only", 0.3): (0.3, 10.9),
    (RISKY, 0.2, "paper", 0.3): (-0.2, 13.6),
    (RISKY, 0.2, "released", 0.3): (2.1, 23.3),
    (RISKY, 0.2, "steer", 0.3): (0.8, 16.0),
    (RISKY, 0.2, "steer_no_std", 0.3): (-1.7, 16.3),
    (RISKY, 0.2, "steer_no_std", 0.6): (6.6, 37.4),
    (RISKY, 0.2, "paper", 0.6): (2.8, 28.0),
    (RISKY, 0.2, "released", 0.6): (7.8, 31.8),
    (RISKY, 0.2, "steer", 0.6): (12.2, 34.2),
}
"""(world, leak rate, arm, alpha) -> range of the difference in unbroken dialogues; predictions.md says where from."""


def read(lab: Lab) -> Students:
    """Every finished seed of every cell."""
    found: dict[Cell, dict[Begun, dict[int, Mapping[str, float]]]] = {cell: {} for cell in sorted(CELLS.values())}
    for name, cell in CELLS.items():
        for seed in lab.on_the_way(name):
            for origin, students in lab.by_origin(name, seed).items():
                found[cell][seed, origin] = {step: students[step] for step in lab.checkpoints}
    return {cell: begun for cell, begun in found.items() if begun}


def strangers(students: Students) -> list[str]:
    """``paper of seed 1``: what no plain mean began with, though one of its seed is there."""
    found = []
    for cell, begun in students.items():
        means = students.get(cell.mean, {})
        seeds = {seed for seed, _ in means}
        lone = sorted({seed for seed, origin in begun if seed in seeds and (seed, origin) not in means})
        found += [f"{cell.arm} {cell.alpha} ({cell.via}, {cell.world}) of seed {seed}" for seed in lone]
    return found


def by_seed(students: Students, measure: str) -> dict[Cell, dict[Begun, float]]:
    """Cell -> what it began at -> mean over the measure's checkpoints."""
    name, last, _ = MEASURES[measure]
    return {
        cell: {
            one: float(np.mean([found[name] for found in list(at.values())[-1 if last else 0 :]]))
            for one, at in begun.items()
        }
        for cell, begun in students.items()
    }


def against_mean(
    values: Mapping[Cell, Mapping[Begun, float]], cell: Cell, measure: str
) -> tuple[Interval, list[float]]:
    """The cell minus the plain mean: over the students that both began at, and from each."""
    own, mean = values.get(cell, {}), values.get(cell.mean, {})
    pairs = [own[begun] - mean[begun] for begun in own if begun in mean]
    if not pairs:
        return UNDEFINED, []
    most = MEASURES[measure][2]
    return page.over(pairs, most, -most), pairs


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
    if low <= found.value <= high:
        return "as expected"
    return "shown, more than expected" if abs(found.value) > max(-low, high) else "shown, less than expected"


def differences(students: Students) -> str:
    """Markdown: every cell, and its differences to the plain mean."""
    values = {measure: by_seed(students, measure) for measure in MEASURES}
    titles = ["trained by", "leak rate", "arm", "alpha", "seeds", "unbroken", "against the plain mean"]
    titles += ["expected", "verdict", "at the end", "helpfulness", "reward"]
    rows = []
    for cell, unbroken in values["unbroken"].items():
        mean = values["unbroken"].get(cell.mean, unbroken)
        level = page.over([value for begun, value in unbroken.items() if begun in mean])
        shown = [cell.via, f"{cell.leak:.0%}", cell.arm, f"{cell.alpha}"]
        if cell == cell.mean:
            rows.append([*shown, str(len(unbroken)), f"{level:.1f}", *["-"] * 6])
            continue
        (found, pairs), *others = (against_mean(values[measure], cell, measure) for measure in MEASURES)
        last, helped, earned = (other for other, _ in others)
        expected = PREDICTED.get((cell.world, cell.leak, cell.arm, cell.alpha))
        foretold = ["", ""]
        if expected:
            said = verdict(found, expected, cell.world) if len(pairs) >= ENOUGH else "too few seeds"
            foretold = [f"{expected[0]:+.1f} .. {expected[1]:+.1f}", said]
        shown += [str(len(pairs)), f"{level:.1f}", f"{found:+.1f}", *foretold]
        rows.append([*shown, f"{last:+.1f}", f"{helped:+.1f}", f"{earned:+.3f}"])
    return table(titles, rows)


def parts(students: Students, lab: Lab) -> list[str]:
    """The whole page in parts; without a student its plan: the window, and what is expected."""
    found = [
        "# TCSR in two worlds",
        "Does TCSR help where every turn can be made perfect, and where the best answer is not the safest? Written by "
        "`python -m benchmarks.lab --pages worlds`. Arms are compared from one and the same student of Stage II, of "
        "which a seed has one under AVX2, as the laboratory computes on every x86 processor, and some have one under "
        "AVX-512 too: the plain mean may have more of them than the arms. An interval without zero, over eight seeds, "
        "shows a difference.",
        "## Which leak rates can tell",
        "`python -m benchmarks.lab.window`, exact, without the division by a group's spread: the leak rate below which "
        "an arm teaches to offer more, and where it leaves a student that began at p.",
        window.table(),
        (Path(__file__).parent / "predictions.md").read_text(),
    ]
    for world, title in ((REACHABLE, "Reachable world"), (RISKY, "World of risky offers")):
        mine = {cell: begun for cell, begun in students.items() if cell.world == world}
        found += [f"## {title}: what came of it", differences(mine) if mine else "No run is finished."]
        found += [f"![differences to the plain mean](tcsr_{world}.png)"] if mine else []
        found += ["![sweeps: differences to the plain mean](tcsr_sweeps.png)"] if mine and world == RISKY else []
    if left_out := ", ".join(strangers(students)):
        found.append(f"Not compared, for the plain mean of their seed began at another student: {left_out}.")
    return [*found, "## Time", page.recorded(lab, CELLS)] if students else found


def panels(students: Students, world: str) -> dict[str, dict[str, tuple[Interval, list[float]]]]:
    """Measure -> cell at the world's own leak rate -> its difference to the plain mean, and that of each seed."""
    cells = [cell for cell in students if cell.world == world and cell.leak in (0.0, LEAK_RATE)]
    found = {}
    for measure in ("unbroken", "at the end", "helpfulness"):
        values = by_seed(students, measure)
        rows = {cell: against_mean(values, cell, measure) for cell in cells if cell != cell.mean}
        found[measure] = {f"{cell.arm} {cell.alpha} ({cell.via})": row for cell, row in rows.items() if row[1]}
    return found


def sweep_plot(students: Students, path: Path) -> Path:
    """The risky world: what each arm of the fast trainer adds to the plain mean that began at the same students, over
    alpha and, where there are two, over the leak rate."""
    values = by_seed(students, "unbroken")
    fast = [cell for cell in values if (cell.via, cell.world) == ("fast", RISKY) and cell.arm in SHAPED]
    found = {cell: against_mean(values, cell, "unbroken")[0] for cell in fast}
    swept = {
        "alpha": [cell for cell in fast if cell.leak == LEAK_RATE],
        "leak": [cell for cell in fast if cell.alpha == ALPHAS[0]],
    }
    if len({cell.leak for cell in swept["leak"]}) < 2:
        del swept["leak"]
    figure, drawn = sheet(len(swept), (6.4 * len(swept), 4.4), sharey=False)
    for axes, (over, cells) in zip(drawn, swept.items(), strict=True):
        axes.axhline(0, color=INK, linewidth=1)
        for place, arm in enumerate(SHAPED):
            own = [cell for cell in cells if cell.arm == arm and np.isfinite(found[cell].low)]
            at = [getattr(cell, over) + 0.008 * (place - 1) for cell in own]  # beside each other
            gaps = np.array([(found[c].value, found[c].low, found[c].high) for c in own]).reshape(-1, 3)
            ends = np.abs(gaps[:, 1:] - gaps[:, :1]).T
            axes.errorbar(at, gaps[:, 0], ends, fmt="o-", capsize=3, color=COLOURS[place + 1], label=arm)
        axes.set_xlabel("alpha" if over == "alpha" else "share of offers that leak", color=INK)
        axes.set_xticks(sorted({getattr(cell, over) for cell in cells}))
        axes.legend(frameon=False)
        title = f"{LEAK_RATE:.0%} of offers leak" if over == "alpha" else f"alpha {ALPHAS[0]}"
        dress(axes, title, "unbroken: points over the plain mean, 95 % intervals of seeds")
    figure.savefig(path)
    return path


def write_page(lab: Lab, folder: Path) -> list[Path]:
    """The page of what is finished and, once there is something, its plots."""
    students = read(lab)
    write(target := folder / "tcsr_worlds.md", *parts(students, lab))
    note = "difference to the plain mean in points: mean and 95 % interval over training seeds, and each seed"
    plots = [
        forest_plot(panels(students, world), folder / f"tcsr_{world}.png", f"{world.replace('_', ' ')}; {note}")
        for world in dict.fromkeys(cell.world for cell in students)
    ]
    if any(cell.world == RISKY for cell in students):
        plots.append(sweep_plot(students, folder / "tcsr_sweeps.png"))
    return [target, *plots]
