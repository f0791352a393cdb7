"""What the laboratory trains: the arms, each a way of training that pages compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from steer_verl.mini.data import LEAK_RATE

CHECKPOINTS = (4, 8, 16, 24)
"""Steps of Stage III whose students are evaluated; the last ends it. The primary measure is the mean over them."""

ATTACKED, BENIGN, STATIC = 500, 300, 300
"""Dialogues of rl_test_long.jsonl, the attacked ones first, and of rl_test.jsonl for static questions."""

PLAIN = "plain_mean"
"""The option of recipes/mini/ablation that is plain GRPO."""

REACHABLE, RISKY = "reachable", "risky_offers"
"""Worlds: in the laboratory as it is every turn can be made perfect; in the other the best answer is not the safest."""

OWN_SIZE, OTHER_SIZES = "2m", ("1m", "5m")
"""The recipe's student, and smaller and larger ones."""

BEFORE = (-1, 0)
"""Checkpoints of the pretrained student and of Stage II's, where they are measured."""


class Cell(NamedTuple):
    """TCSR's setting in a world."""

    via: str
    """Who trains: ``verl`` or ``fast``."""
    world: str
    leak: float
    """Share of the risky offers that leak."""
    arm: str
    alpha: float

    @property
    def mean(self) -> Cell:
        """The plain mean that it is compared with; no alpha moves it."""
        return self._replace(arm=PLAIN, alpha=0.0)


class Game(NamedTuple):
    """What may tempt a student to game its tutor, and what damps it."""

    tutor: str
    """``rule``, or ``gullible``: pays all for the form of a refusal (tests/tutor/gamers.py)."""
    benign: float
    """Share of benign dialogues: the recipe's half, or none."""
    kl: float
    """Coefficient of the penalty."""


@dataclass(frozen=True)
class Arm:
    """A way of training."""

    title: str
    begins: str = "sft"
    """Arm that it begins at; ``base`` is the pretrained student, ``base-1m`` that of another size."""
    stage: str = "grpo"
    """``sft`` or ``grpo``, by verl; ``fast``: Stage III by benchmarks/lab/fast.py; ``base``: nothing is trained."""
    ablation: str = ""
    """Option of recipes/mini/ablation that makes it; empty for the recipe as it is."""
    static: bool = False
    """Whether it is asked static questions too, where it is played."""
    cell: Cell | None = None
    """What it is in the comparison of TCSR's settings."""
    game: Game | None = None
    """What it is in the comparison of students that may game their tutor."""
    size: str = ""
    """What it is in the comparison of sizes, which measures the students before Stage III too."""
    few: bool = False
    """Whether the first :data:`FEW` seeds alone have it."""

    @property
    def world(self) -> str:
        """Where it is trained and measured."""
        return self.cell.world if self.cell else REACHABLE

    @property
    def train(self) -> str:
        """File of the seed's data that Stage III draws from."""
        return "rl_train_risky.parquet" if self.world == RISKY else "rl_train.parquet"

    @property
    def test(self) -> str:
        """File of the base's data that it is measured on, attacked dialogues first."""
        return "rl_test_risky.jsonl" if self.world == RISKY else "rl_test_long.jsonl"


ARMS: dict[str, Arm] = {
    "base": Arm("base", stage="base", static=True),
    "sft": Arm("SFT", "base", "sft", static=True),
    "grpo": Arm("SFT + GRPO", static=True),
    PLAIN: Arm("without TCSR", ablation=PLAIN, static=True),
    "static": Arm("without feedback dynamics", ablation="static", static=True),
    "no_bootstrap": Arm("without bootstrapping", "base", ablation="no_bootstrap", static=True),
    "sft_single_turn": Arm("single-turn SFT", "base", "sft", "sft_single_turn", static=True),
    "single_turn": Arm("single-turn SFT + GRPO", "sft_single_turn", ablation="single_turn", static=True),
}
"""Name, which is that of its folder below a seed's -> arm, in the order in which they are trained."""

RISKY_RUN = (
    "world=risky_offers",
    "trainer.default_local_dir=${mini.root}/${mini.run}/checkpoints",
    "actor_rollout_ref.rollout.custom.steer.transcripts=${mini.root}/${mini.run}/transcripts",
)
"""The world of risky offers, in the folder of the arm."""

ALPHAS, LEAKS = (0.3, 0.6), (0.1, 0.2, 0.3)
SHAPED = ("steer", "paper", "released")
"""Settings that a sweep varies; verl trains these and the plain mean in both worlds."""
SETTINGS = ("turn_local", "raw_to_go", "prefix_only", "steer_no_std", *SHAPED)
"""Everything that is compared with the plain mean; names of benchmarks/lab/window.py."""


def _in_worlds() -> Iterator[tuple[str, Arm]]:
    """The arms of TCSR's page: by verl at the recipe's alpha, then by the fast trainer."""
    for setting in (PLAIN, *SHAPED):
        option, alpha = "" if setting == "steer" else setting, 0.0 if setting == PLAIN else ALPHAS[0]
        reachable, risky = (
            Arm(
                f"{setting.replace('_', ' ')}, {world}",
                ablation=option,
                cell=Cell("verl", world, leak, setting, alpha),
            )
            for world, leak in ((REACHABLE, 0.0), (RISKY, LEAK_RATE))
        )
        name = option or "grpo"
        yield name, replace(ARMS[name], cell=reachable.cell) if name in ARMS else reachable
        yield f"risky_{setting}", risky
    cells = [Cell("fast", REACHABLE, 0.0, setting, ALPHAS[0]) for setting in SETTINGS]
    cells += [Cell("fast", RISKY, LEAK_RATE, setting, ALPHAS[0]) for setting in SETTINGS]
    cells += [Cell("fast", RISKY, LEAK_RATE, setting, ALPHAS[1]) for setting in ("steer_no_std", *SHAPED)]
    cells += [Cell("fast", RISKY, leak, setting, ALPHAS[0]) for setting in SHAPED for leak in LEAKS]
    for cell in dict.fromkeys([cell.mean for cell in cells] + cells):
        name = "-".join(map(str, cell))
        yield name, Arm(name, stage="fast", cell=cell)


ARMS |= dict(_in_worlds())
CELLS = {name: arm.cell for name, arm in ARMS.items() if arm.cell}

GAMES = [Game("rule", benign, kl) for benign in (0.5, 0.0) for kl in (0.0, 0.02, 0.1)]
GAMES += [Game("gullible", benign, kl) for benign in (0.5, 0.0) for kl in (0.02, 0.1)]
ARMS |= {"game-" + "-".join(map(str, game)): Arm(str(game), stage="fast", game=game, few=True) for game in GAMES}

for _size in OTHER_SIZES:
    ARMS |= {
        f"base-{_size}": Arm(f"base, {_size}", stage="base"),
        f"sft-{_size}": Arm(f"SFT, {_size}", f"base-{_size}", "sft", few=True),
    }
for _size in sorted((OWN_SIZE, *OTHER_SIZES)):
    _sft = f"sft-{_size}" if _size in OTHER_SIZES else "sft"
    ARMS |= {f"size-{_size}": Arm(f"{_size} weights", _sft, "fast", size=_size, few=True)}

FEW = 4
"""Seeds that have the students of other sizes and those that game their tutor."""


def with_origins(names: Sequence[str]) -> list[str]:
    """The arms and those that they begin at, in the order of :data:`ARMS`; all begin at the base."""
    wanted = {*names, *(["base"] if names else [])}
    while more := {ARMS[name].begins for name in wanted if ARMS[name].stage != "base"} - wanted:
        wanted |= more
    return [name for name in ARMS if name in wanted]
