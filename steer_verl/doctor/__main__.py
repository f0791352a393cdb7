"""``python -m steer_verl.doctor {process,ray} FILE``: run the checks in this process, or in a Ray worker, into FILE."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from steer_verl.doctor.checks import Check, probe


def in_ray_worker() -> list[Check]:
    """The checks as a worker of the user's cluster (``RAY_ADDRESS``) sees them, or of a small local one."""
    import ray

    local = {"address": "local", "num_cpus": 1, "include_dashboard": False}
    ray.init(log_to_driver=False, **({} if os.environ.get("RAY_ADDRESS") else local))
    try:
        return ray.get(ray.remote(num_cpus=1)(probe).remote())
    finally:
        ray.shutdown()


def main(place: str, answer: str) -> None:
    """Write the checks as JSON, at once and whole, so that a half-written answer is never read."""
    checks = in_ray_worker() if place == "ray" else probe()
    Path(answer).write_text(json.dumps([dataclasses.asdict(check) for check in checks]))


if __name__ == "__main__":
    main(*sys.argv[1:])
