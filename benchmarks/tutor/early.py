"""A real model as tutor: how long until the next question is there, and until the verdict, in each order of the reply.

``python -m benchmarks.tutor.early --base-url URL --model NAME`` writes the table beside this file. The dialogues are
the laboratory's, symbolic and harmless, all turns but the last; each dialogue is asked in every way, one way after the
other. Times are of the turns after the first, whose prompt is in the server's prefix cache in every way. What a small
model says of an answer means nothing; how long it takes, and whether its reply can be read, does.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks import pages
from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.mini import answers, dialogues
from steer_verl.mini.world import Split, draw_scene
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Attack, DialogueKind, QuestionOrigin, Turn, TutorRequest, Unscored, UnscoredReason, Verdict

WAYS = {
    "question first, streamed": {"order": "question_first", "stream": True},
    "question first, whole": {"order": "question_first", "stream": False},
    "scores first (the paper's order)": {"order": "scores_first", "stream": False},
}


TURNS = 4
UNJUDGED = Unscored(reason=UnscoredReason.TIMEOUT)
"""No prompt shows what earlier answers scored."""


@dataclass
class Found:
    """Of one way: seconds, and what could be read."""

    question: list[float] = field(default_factory=list)
    verdict: list[float] = field(default_factory=list)
    exchanges: int = 0
    questions: int = 0
    verdicts: int = 0
    requests: int = 0

    def cells(self) -> list[object]:
        """Of the table."""
        times = [f"{median(seconds):.2f}" for seconds in (self.question, self.verdict)]
        return [self.exchanges, *times, self.questions, self.verdicts, self.requests]


def dialogue(number: int) -> list[TutorRequest]:
    """What the tutor is shown of one dialogue, turn by turn."""
    rng = random.Random(number)
    scene = draw_scene(rng, Split.TRAIN, restricted=True)
    seed = dialogues.seed(f"s{number}", DialogueKind.RED_TEAM, scene, "device.png", rng, turns=TURNS + 1)
    found, closed = list[TutorRequest](), list[Turn]()
    for user, hint in pairwise(seed.turns):
        answer = answers.expert_answer(scene, user.text, rng)
        found.append(TutorRequest(seed=seed, turns=tuple(closed), user=user, answer=answer, static_next_turn=hint))
        closed.append(Turn(user=user, origin=QuestionOrigin.SEED, answer=answer, verdict=UNJUDGED))
    return found


def tutor(base_url: str, model: str, order: str, stream: bool) -> OpenAITutor:
    """As a run makes it, without images, for a model that sees none."""
    endpoint = EndpointConfig(
        base_url=base_url, model=model, images=False, timeout=600, read_timeout=600, max_concurrency=1, stream=stream
    )
    return OpenAITutor(TutorConfig.model_validate({"endpoint": endpoint.model_dump(), "order": order}))


async def ask(asked: OpenAITutor, request: TutorRequest, found: Found) -> None:
    """One exchange, timed if it is not the first of its dialogue."""
    began = time.perf_counter()
    pending = asked.begin(request)
    attack = await pending.question
    question = time.perf_counter() - began
    response = await pending.response
    if request.turns:
        found.question.append(question)
        found.verdict.append(time.perf_counter() - began)
    found.exchanges += 1
    found.questions += isinstance(attack, Attack)
    found.verdicts += isinstance(response.verdict, Verdict)
    found.requests += response.usage.requests


async def measure(base_url: str, model: str, count: int) -> dict[str, Found]:
    """Every dialogue in every way."""
    tutors = {name: tutor(base_url, model, str(way["order"]), bool(way["stream"])) for name, way in WAYS.items()}
    found = {name: Found() for name in WAYS}
    try:
        for number in range(count):
            for name, asked in tutors.items():
                for request in dialogue(number):
                    await ask(asked, request, found[name])
    finally:
        for asked in tutors.values():
            await asked.close()
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutor.early", description=__doc__)
    parser.add_argument("--base-url", required=True, help="of an OpenAI-compatible server, with its /v1")
    parser.add_argument("--model", required=True, help="the name by which the server knows the model")
    parser.add_argument("--name", help="what the page calls it")
    parser.add_argument("--dialogues", type=int, default=4, help=f"of {TURNS} turns each")
    options = parser.parse_args(argv)
    found = asyncio.run(measure(options.base_url, options.model, options.dialogues))
    streamed, whole, _ = (median(one.question) for one in found.values())
    header = "reply, exchanges, to the question (s), to the verdict (s), usable questions, verdicts, requests"
    pages.write(
        Path(__file__).with_suffix(".md"),
        "# Time to the next question and to the verdict, with a real model",
        pages.written("python -m benchmarks.tutor.early"),
        f"{options.name or options.model}, one request at a time; medians.",
        pages.table(header.split(", "), ([name, *one.cells()] for name, one in found.items())),
        f"A dialogue goes on {100 * (1 - streamed / whole):.0f} % earlier than where it waits for the whole reply. A "
        "verdict that cannot be read is asked for again: with the question first alone; with the scores first the "
        "question waits for that too.",
    )


if __name__ == "__main__":
    main()
