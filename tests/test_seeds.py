"""A place's seed: the same in every process, another one for every place."""

from __future__ import annotations

import itertools
import subprocess
import sys

from steer_verl.seeds import place_seed


def test_it_is_the_same_in_every_process_and_release() -> None:
    code = "from steer_verl.seeds import place_seed; print(place_seed(42, 'train/3/seed 7/0/1'))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) == place_seed(42, "train/3/seed 7/0/1") == 3033503694722044971


def test_no_two_places_share_one() -> None:
    numbers = itertools.product(("train", "val"), range(4), range(9), range(5), range(1, 9))
    places = ["/".join(map(str, place)) for place in numbers]
    seeds = {place_seed(seed, place) for seed in (0, 1) for place in places}
    assert len(seeds) == 2 * len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert min(seeds) < 2**60 and max(seeds) > 2**62, "over the whole range"
