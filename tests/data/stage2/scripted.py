"""Dialogues for the tests of Stage II and of the sets."""

from __future__ import annotations

from steer_verl.data.seed import Made, SetName
from steer_verl.types import (
    IMAGE_MARK,
    DialogueKind,
    QuestionOrigin,
    Seed,
    StopReason,
    Trajectory,
    Turn,
    UserTurn,
)
from tests.data.scripted import GOOD, verdict


def seed(
    name: str = "s:1/red_team",
    turns: int = 3,
    image: str | None = None,
    kind: DialogueKind = DialogueKind.RED_TEAM,
    topic: str = "",
    **more: object,
) -> Seed:
    """A dialogue about boxes; every name and topic has its own words."""
    words = " ".join(f"{topic or name} {part}".replace("/", " ") for part in ("lid", "hinge", "label", "corner"))
    texts = [f"About {words}: what is side {number}?" for number in range(turns)]
    opening = UserTurn(text=IMAGE_MARK * bool(image) + texts[0], images=(image,) if image else ())
    rest = tuple(UserTurn(text=text) for text in texts[1:])
    origin = {"source": "s", "source_id": name.split("/")[0].removeprefix("s:"), "license": "CC-BY-4.0"}
    return Seed(id=name, turns=(opening, *rest), kind=kind, **{**origin, **more})


def played(item: Seed, score: tuple[int, int] = (10, 10)) -> Made:
    """The seed as a kept dialogue with static questions."""
    turns = tuple(
        Turn(user=user, origin=QuestionOrigin.STATIC, answer=GOOD, verdict=verdict(*score)) for user in item.turns
    )
    trajectory = Trajectory(seed_id=item.id, kind=item.kind, source=item.source, turns=turns, stop=StopReason.COMPLETED)
    return Made(side=SetName.SFT, seed=item, trajectory=trajectory)
