"""A small soak; benchmarks/tutor/soak.py makes a page of a thousand dialogues."""

from __future__ import annotations

from pathlib import Path

from benchmarks.tutor.soak import kinds, soak


async def test_no_dialogue_is_lost_in_silence_whatever_a_server_sends(tmp_path: Path) -> None:
    outcome = await soak(80, kinds(), 0.35, tmp_path, concurrency=32, thinking=0.05)
    assert outcome.faults == []
    assert len(outcome.trajectories) == 80 and len(outcome.injected) > 0.5 * len(kinds())
    assert outcome.unscored and outcome.grown < 300
