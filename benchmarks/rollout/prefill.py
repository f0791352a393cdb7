"""Prompt tokens that a tutor's server must compute anew: our layout against the history before the rubric.

Both layouts carry the same words about the same dialogues: our ``PromptBuilder`` puts the rubric first, then the
history, then the request; the paper's puts the history first and the rubric after it, so that a prefix cache can reuse
the history alone. A real server counts: any OpenAI-compatible one that reports
``usage.prompt_tokens_details.cached_tokens``, named by ``STEER_PREFILL_URL`` (with its ``/v1``) and
``STEER_PREFILL_MODEL``. Every session (a layout and one dialogue, or one group) has a first line of its own, so that it
starts with nothing in the cache. On llama.cpp set ``STEER_PREFILL_SLOTS`` to the server's ``--parallel``: each rollout
then keeps to its own slot, or siblings would throw out each other's history. ``benchmarks.cost`` reckons the same for a
whole training without any server.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any
from uuid import uuid4

from benchmarks.rollout.page import Row
from steer_verl.errors import TutorError
from steer_verl.mini import answers, dialogues
from steer_verl.mini.world import PARTS, Scene, Split, draw_scene
from steer_verl.tutor.prompt import Prompt, PromptBuilder, Rubric, Task
from steer_verl.types import DialogueKind, QuestionOrigin, Turn, TutorRequest, Unscored, UnscoredReason, UserTurn

TURNS, GROUP, ALONE = 8, 5, 3
DEMAND = 0.35
URL, MODEL, SLOTS = "STEER_PREFILL_URL", "STEER_PREFILL_MODEL", "STEER_PREFILL_SLOTS"
UNJUDGED = Unscored(reason=UnscoredReason.TIMEOUT)
"""No prompt shows what earlier answers scored."""

Messages = list[dict[str, Any]]


def rubric_last(prompt: Prompt) -> Messages:
    """The same words in the paper's order: history, rubric, request."""
    return [{"role": "user", "content": "".join((*map(str, prompt.history), prompt.system, "\n", prompt.request))}]


LAYOUTS: dict[str, Callable[[Prompt], Messages]] = {"ours": Prompt.messages, "rubric last": rubric_last}


def say(scene: Scene, question: str, rng: random.Random) -> str:
    """A scripted answer of 60-90 tokens in the student's format: the expert's, after a thought of some length."""
    part_1, part_2 = PARTS[scene.shape]
    known = [answers.LOOK_SENTENCE, *answers.TOPIC_SENTENCES.values()]
    thought = [s.format(name=scene.name, part_1=part_1, part_2=part_2) for s in rng.sample(known, rng.randint(2, 4))]
    spoken = answers.expert_answer(scene, question, rng)
    return spoken.replace("</thinking>", ". " + " ".join(thought) + " I weigh what is asked of me.</thinking>", 1)


def dialogue(number: int, rollout: int = 0, turns: int = TURNS) -> list[TutorRequest]:
    """What the tutor is shown of one dialogue, turn by turn; rollouts of a seed share the opening question alone."""
    scene = draw_scene(random.Random(number), Split.TRAIN, restricted=True)
    seed = dialogues.seed(f"s{number}", DialogueKind.RED_TEAM, scene, "device.png", random.Random(number), turns=turns)
    rng = random.Random(f"{number}/{rollout}")
    closed: tuple[Turn, ...] = ()
    found = []
    for place, planned in enumerate(seed.turns):
        user = planned if place == 0 else UserTurn(text=dialogues.adaptive_question(scene, rng))
        answer = say(scene, user.text, rng)
        hint = seed.turns[place + 1] if place + 1 < turns else None
        found.append(TutorRequest(seed=seed, turns=closed, user=user, answer=answer, static_next_turn=hint))
        closed = (*closed, Turn(user=user, origin=QuestionOrigin.TUTOR, answer=answer, verdict=UNJUDGED))
    return found


def session(layout: str, played: Sequence[Sequence[TutorRequest]]) -> Iterator[Messages]:
    """The requests of dialogues that run side by side, turn by turn, behind a first line that no other session has."""
    builder = PromptBuilder(Rubric.load(), image=None, secret=b"the same marks in every run")
    first_line = f"Session {uuid4().hex}.\n"
    for turn in zip(*played, strict=True):
        for exchange in turn:
            task = Task.SCORE if exchange.static_next_turn is None else Task.BOTH
            first, *rest = LAYOUTS[layout](builder.build(exchange, task))
            yield [{**first, "content": first_line + first["content"]}, *rest]


def computed(http: Any, layout: str, played: Sequence[Sequence[TutorRequest]]) -> float:
    """Prompt tokens that the server did not have in its cache, a dialogue; one request after another, one token each.

    Raises:
        TutorError: the server does not answer, or does not say what was cached.
    """
    import httpx

    slots, fresh = int(os.environ.get(SLOTS, "0")), 0
    for number, messages in enumerate(session(layout, played)):
        body = {"model": os.environ.get(MODEL, "tutor"), "messages": messages, "max_tokens": 1, "temperature": 0}
        if slots:
            body["id_slot"] = number % len(played) % slots
        try:
            usage = http.post("chat/completions", json=body).raise_for_status().json()["usage"]
            fresh += usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        except httpx.HTTPError as error:
            raise TutorError(f"{http.base_url}: {error}; start a server and name it by {URL}") from None
        except (KeyError, TypeError):
            raise TutorError(
                f"{http.base_url}: usage.prompt_tokens_details.cached_tokens is missing; "
                "have the server report it (vLLM: --enable-prompt-tokens-details)"
            ) from None
    return fresh / len(played)


def measure(_: Path) -> dict[str, Any] | None:
    """Three dialogues, each alone, and five rollouts of one prompt turn by turn; nothing without a server."""
    import httpx

    if not (url := os.environ.get(URL)):
        print(f"prefill: skipped, no server; name one by {URL} (and {MODEL})")
        return None
    scenarios = {
        "one dialogue alone": [[dialogue(number)] for number in range(ALONE)],
        f"{GROUP} rollouts of a group, turn by turn": [[dialogue(ALONE, rollout) for rollout in range(GROUP)]],
    }
    rows = []
    with httpx.Client(base_url=url, timeout=600) as http:
        for scenario, sessions in scenarios.items():
            mean = {layout: fmean(computed(http, layout, played) for played in sessions) for layout in LAYOUTS}
            ours, other = mean.values()
            what = f"tutor's uncached prompt tokens, {TURNS} turns, {scenario}"
            demand, met = f"ratio <= {DEMAND}", ours <= DEMAND * other
            rows.append(Row(what, "tokens", ours, other, demand, met, "history first, rubric after"))
    return {"rows": [row.as_dict() for row in rows]}
