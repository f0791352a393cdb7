"""Train and evaluate what the pages are about, over many seeds, then write them: ``python -m benchmarks.lab``

It goes on where it was interrupted, at the least priority, some stages at a time, and says the hours spent; what is on
record (students.jsonl) is not trained again: take a line away to have it measured anew. No figure in the pages is
written by hand.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.lab.arms import ARMS
from benchmarks.lab.runs import RECORD, Lab, keep, stages
from steer_verl.demo.runner import durations, run
from steer_verl.errors import SteerError

PAGES = ("mini", "ablations", "worlds", "gaming", "sizes")
"""Modules of this package, which says what they are."""

HERE = Path(__file__).resolve().parents[1]
"""Where the pages lie."""


def main() -> None:
    """Run what is missing, then write the pages."""
    args = arguments()
    pages = {name: import_module(f"benchmarks.lab.{name}") for name in args.pages}
    needed = {name for page in pages.values() for name in page.NEEDS}
    read = {name for page in pages.values() if page.MARKED for name in page.NEEDS}
    arms = tuple(name for name in ARMS if name in (args.arms or needed))
    marked, record = tuple(name for name in arms if name in read), None if args.quick else RECORD
    lab = Lab(args.out.resolve(), tuple(dict.fromkeys(args.seeds)), arms, args.quick, marked, record)
    todo = stages(lab)
    try:
        if not args.page:
            os.nice(19)
            run(todo, lab.out, lanes=args.lanes, hours=args.hours)
    finally:
        keep(lab)
        spent = durations(todo, lab.out)
        print(f"{sum(spent.values()) / 3600:.1f} hours of stages so far, {len(spent)} of {len(todo)} done")
    write(pages, replace(lab), lab.out if args.quick else HERE)  # which reads the record as it is now


def write(pages: dict[str, Any], lab: Lab, folder: Path) -> None:
    """Write each page of which a seed is finished."""
    for name, page in pages.items():
        try:
            print(f"{name}: {', '.join(map(str, page.write_page(lab, folder)))}")
        except SteerError as error:
            print(f"{name}: not written, {error}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    only = "only these of benchmarks/lab/arms.py, and those that they begin at"
    parser.add_argument("--arms", nargs="+", choices=ARMS, metavar="ARM", help=only)
    parser.add_argument("--pages", nargs="+", choices=PAGES, default=list(PAGES))
    parser.add_argument("--out", type=Path, default=Path("out/lab"))
    parser.add_argument(
        "--lanes", type=int, default=min(2, os.cpu_count() or 1), help="stages at a time, a thread each"
    )
    parser.add_argument("--hours", type=float, help="begin nothing new after so many")
    parser.add_argument("--quick", action="store_true", help="shows that the machinery works; writes below --out only")
    parser.add_argument("--page", action="store_true", help="only write the pages, of what is finished")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("lab: interrupted; the same command goes on from here") from None
    except SteerError as error:
        raise SystemExit(f"lab: {error}") from None
