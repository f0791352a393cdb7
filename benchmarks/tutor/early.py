"""A real model as tutor: how long until the next question is there, and until the verdict, in each order of the reply.

``python -m benchmarks.tutor.early --base-url URL --model NAME`` writes the table beside this file. The dialogues are
the laboratory's, symbolic and harmless, all turns but the last, and the same for every order of the reply. Times are of
the turns after the first, whose prompt begins as the one before, which the server has in its prefix cache. What a small
model says of an answer means nothing; how long it takes, and whether its reply can be read, does.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks import pages
from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.mini import answers, dialogues
from steer_verl.mini.world import Split, draw_scene
from steer_verl.tutor.client import OpenAITutor
from steer_verl.tutor.prompt import Order
from steer_verl.types import Attack, DialogueKind, QuestionOrigin, Turn, TutorRequest, Unscored, UnscoredReason, Verdict

WAYS: dict[str, tuple[Order, bool]] = {
    "question first, streamed": ("question_first", True),
    "question first, whole": ("question_first", False),
    "scores first (the paper's order)": ("scores_first", False),
}
TURNS = 4
UNJUDGED = Unscored(reason=UnscoredReason.TIMEOUT)
"""No prompt shows what earlier answers scored."""


def dialogue(number: int) -> Iterator[TutorRequest]:
    """What the tutor is shown of one dialogue, turn by turn."""
    rng, closed = random.Random(number), list[Turn]()
    scene = draw_scene(rng, Split.TRAIN, restricted=True)
    seed = dialogues.seed(f"s{number}", DialogueKind.RED_TEAM, scene, "device.png", rng, turns=TURNS + 1)
    for user, hint in pairwise(seed.turns):
        answer = answers.expert_answer(scene, user.text, rng)
        yield TutorRequest(seed=seed, turns=tuple(closed), user=user, answer=answer, static_next_turn=hint)
        closed.append(Turn(user=user, origin=QuestionOrigin.SEED, answer=answer, verdict=UNJUDGED))


async def measure(tutor: OpenAITutor, count: int) -> tuple[float, list[object]]:
    """Median seconds to the question, and the cells of the table."""
    times, counts = list[tuple[float, float]](), Counter[str]()
    for request in (request for number in range(count) for request in dialogue(number)):
        began = time.perf_counter()
        pending = tutor.begin(request)
        attack, asked = await pending.question, time.perf_counter()
        response, judged = await pending.response, time.perf_counter()
        if request.turns:
            times.append((asked - began, judged - began))
        counts.update(
            exchanges=1,
            questions=isinstance(attack, Attack),
            verdicts=isinstance(response.verdict, Verdict),
            requests=response.usage.requests,
        )
    await tutor.close()
    question, verdict = (median(column) for column in zip(*times, strict=True))
    read = [counts[name] for name in ("questions", "verdicts", "requests")]
    return question, [counts["exchanges"], f"{question:.2f}", f"{verdict:.2f}", *read]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutor.early", description=__doc__)
    parser.add_argument("--base-url", required=True, help="of an OpenAI-compatible server, with its /v1")
    parser.add_argument("--model", required=True, help="the name by which the server knows the model")
    parser.add_argument("--name", help="what the page calls it")
    parser.add_argument("--dialogues", type=int, default=4, help=f"of {TURNS} turns each")
    given = parser.parse_args()
    server = {"base_url": given.base_url, "model": given.model, "images": False, "max_concurrency": 1}
    found = {}
    for name, (order, stream) in WAYS.items():
        endpoint = EndpointConfig(**server, timeout=600, read_timeout=600, stream=stream)
        found[name] = asyncio.run(measure(OpenAITutor(TutorConfig(endpoint=endpoint, order=order)), given.dialogues))
    streamed, whole, _ = (question for question, _ in found.values())
    header = "reply, exchanges, to the question (s), to the verdict (s), usable questions, verdicts, requests"
    pages.write(
        Path(__file__).with_suffix(".md"),
        "# Time to the next question and to the verdict, with a real model",
        pages.written("python -m benchmarks.tutor.early"),
        f"{given.name or given.model}, one request at a time; medians.",
        pages.table(header.split(", "), ([name, *cells] for name, (_, cells) in found.items())),
        f"A dialogue goes on {100 * (1 - streamed / whole):.0f} % earlier than where it waits for the whole reply. A "
        "verdict that cannot be read is asked for again: with the question first alone; with the scores first the "
        "question waits for that too.",
    )


if __name__ == "__main__":
    main()
