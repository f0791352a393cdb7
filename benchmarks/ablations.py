"""Does each part of the method help in the miniature laboratory? ``python benchmarks/ablations.py``

It trains and evaluates the method and the method without one of its parts (steer_verl/demo/ablations.py), two stages at
a time, going on where it was interrupted, and writes ``benchmarks/ablations.md`` and ``benchmarks/ablations.png``; no
figure in them is written by hand.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ablation_page import page, plot, read

from steer_verl.demo.ablations import Ablations, evaluations_alone, finished, link_base, stages
from steer_verl.demo.display import Display
from steer_verl.demo.lanes import share, start
from steer_verl.demo.stages import rows
from steer_verl.errors import SteerError

HERE = Path(__file__).parent
LANES = 2
"""Stages at a time, of one thread each."""


def main() -> None:
    """Run what is missing, then write the figures."""
    args = arguments()
    run = Ablations(args.out.resolve(), tuple(args.seeds), args.quick, args.steps)
    if args.lane:
        todo = evaluations_alone(run) if args.evaluate else stages(run)
        return share(todo, run.out, Display(rows(todo), lanes=args.lanes))
    if not args.page:
        link_base(run)
        start([sys.executable, *sys.argv, "--lane"], args.lanes, run.out)
    write(run, args.out if args.quick else HERE)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("out/ablations"))
    parser.add_argument("--steps", type=int, help="steps of GRPO for every student instead of the recipe's")
    parser.add_argument("--lanes", type=int, default=min(LANES, os.cpu_count() or 1), help="stages at a time")
    parser.add_argument("--quick", action="store_true", help="shows that the machinery works; writes below --out only")
    parser.add_argument("--evaluate", action="store_true", help="train nothing: evaluate the students that are there")
    parser.add_argument("--page", action="store_true", help="only write the figures, of the seeds that are finished")
    parser.add_argument("--lane", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def write(run: Ablations, target: Path) -> None:
    """The page and its plot, of the seeds whose students have all been evaluated.

    Raises:
        SteerError: there is no such seed.
    """
    seeds = finished(run)
    if not seeds:
        raise SteerError(f"{run.out}: no seed is finished; run the command without --page")
    marks = read(run, seeds)
    plot(marks, seeds, target / "ablations.png")
    (target / "ablations.md").write_text(page(run, marks, seeds))
    print(f"{target}/ablations.md, {target}/ablations.png: seeds {', '.join(map(str, seeds))}")


if __name__ == "__main__":
    try:
        main()
    except SteerError as error:
        raise SystemExit(f"ablations: {error}") from None
