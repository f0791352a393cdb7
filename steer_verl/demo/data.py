"""The laboratory's data in the form that the mini recipe reads: all seeds as verl's parquet next to their JSONL."""

from __future__ import annotations

from pathlib import Path

from steer_verl.errors import DataError


def build_data(out: Path, *, seed: int = 0, quick: bool = False) -> None:
    """Write all data of the laboratory below ``out``.

    Raises:
        DataError: a seed that was just written does not pass the checks of ``steer data``.
    """
    from steer_verl.data.rows.parquet import convert
    from steer_verl.mini.data import Sizes, build

    sizes = (
        Sizes(
            pretrain=240,
            sft=80,
            rl_train=40,
            rl_validation=16,
            rl_test=24,
            long_attacked=24,
            long_benign=12,
            rl_train_risky=16,
            rl_test_risky=12,
        )
        if quick
        else Sizes()
    )
    build(out, seed=seed, sizes=sizes)
    report = convert(out / "rl_validation.jsonl", out / "rl_val.parquet", split="validation")
    if report.bad_rows:
        raise DataError(f"{out}/rl_validation.jsonl: {report.bad_rows} bad rows; remove {out} and build it again")
