"""``python -m benchmarks.gpu``: measure what a GPU is wanted for, part by part; without one, say so and do nothing."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.gpu import grpo, micro, page, student
from steer_verl.errors import SteerError


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, then render. The exit status is 1 when a part failed or a training ended early."""
    args = arguments(argv)
    ended = []
    if not args.render:
        import torch

        if not torch.cuda.is_available():
            print("benchmarks.gpu: skipped, no CUDA device on this machine; nothing was measured, nothing was written")
            return 0
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a training that is cut leaves nothing running
        ended = [attempt(part, args) for part in page.PARTS if part in args.only]
    page.write(page.load(args.out), args.page)
    return 0 if all(ended) else 1


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/gpu"), help="one JSON file a part, logs, student, rows")
    parser.add_argument("--page", type=Path, default=grpo.HERE.parent, help="folder for gpu.md, gpu.png")
    parser.add_argument("--only", nargs="+", default=page.PARTS, choices=page.PARTS)
    parser.add_argument("--steps", type=int, default=3, help="of each training; the first is not counted")
    parser.add_argument("--prompts", type=int, default=16, help="of a step; each is played five times")
    parser.add_argument("--limit", type=float, default=480, help="seconds after which a training is ended")
    parser.add_argument("--model", type=Path, help="a student of your own instead of the random one")
    vocabulary = "ids of the random one; see student.py"
    parser.add_argument("--vocabulary", type=int, default=student.VOCABULARY, help=vocabulary)
    parser.add_argument("--override", nargs="+", default=[], help="of a training, in Hydra's syntax, after ours")
    parser.add_argument("--render", action="store_true", help="write the page from --out; needs no GPU")
    args = parser.parse_args(argv)
    args.out = args.out.resolve()
    return args


def attempt(part: str, args: argparse.Namespace) -> bool:
    """As :func:`measure`; what a part raises is told, and the next one is measured: a card is lent for minutes."""
    try:
        return measure(part, args)
    except Exception:
        traceback.print_exc()
        print(f"benchmarks.gpu: {part} failed (above)", flush=True)
        return False


def measure(part: str, args: argparse.Namespace) -> bool:
    """Measure one part and keep what is found; whether it came to its end."""
    print(f"benchmarks.gpu: {part}", flush=True)
    where, run = apart(page.machine), args.out / part
    if part not in page.MODES:
        page.save(args.out, part, where, apart(getattr(micro, part)))
        return True
    model = args.model or apart(student.build, args.out / "student", vocabulary=args.vocabulary)
    changes = grpo.overrides(
        part,
        flash_attn=find_spec("flash_attn") is not None,
        student=Path(model).resolve(),
        rows=grpo.build_rows(args.out / "rows", args.prompts * (args.steps + 2)),
        run=run,
        steps=args.steps,
        prompts=args.prompts,
    )
    changes += args.override
    ended = grpo.measure(run, changes, args.limit, lambda found: page.save(args.out, part, where, found))["ended"]
    print(f"benchmarks.gpu: {part} {ended}", flush=True)
    return bool(ended == "as planned")


def apart(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """``function(...)`` in a process of its own, so that none of its GPU memory is left when a training starts."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **options).result()


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except SteerError as error:
        raise SystemExit(f"benchmarks.gpu: {error}") from None
