"""What is said of a way of training rather than of the students that came of it: a training seed is an observation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from steer_verl.eval.compare.models import Model, Seed
from steer_verl.eval.compare.paired import Difference
from steer_verl.eval.intervals import difference_over_runs, over_runs
from steer_verl.statistics import Interval

Read = Callable[[Seed], float]
"""A figure of one student on one benchmark."""

Scale = tuple[float, float]
"""The least and the greatest value of a figure."""


@dataclass(frozen=True)
class OverSeeds:
    """Models by training seed; a figure is its mean over ``benchmarks``, in seeds that played all of them."""

    models: Sequence[Model]
    baseline: Model
    benchmarks: Sequence[str]

    def spread(self, read: Read, scale: Scale) -> dict[str, Interval]:
        """Model of several seeds -> mean of a figure over them."""
        found = {model.name: list(self._values(model, read).values()) for model in self.models}
        return {name: over_runs(values, scale) for name, values in found.items() if len(values) > 1}

    def add_to(self, differences: Mapping[str, Difference], read: Read, scale: Scale) -> dict[str, Difference]:
        """Differences to the baseline, each with what it is over the seeds that both have."""
        before, found = self._values(self.baseline, read), dict(differences)
        for model in self.models:
            after = self._values(model, read)
            both = sorted(before.keys() & after.keys())
            if model.name in differences and len(both) > 1:
                over = difference_over_runs([after[seed] for seed in both], [before[seed] for seed in both], scale)
                found[model.name] = replace(differences[model.name], over_seeds=over)
        return found

    def _values(self, model: Model, read: Read) -> dict[int, float]:
        played = [model.seeds.get(benchmark, {}) for benchmark in self.benchmarks]
        everywhere = sorted(set.intersection(*map(set, played)))
        return {seed: sum(read(seeds[seed]) for seeds in played) / len(played) for seed in everywhere}
