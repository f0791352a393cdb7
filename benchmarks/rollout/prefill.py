"""Prompt tokens that a tutor's server must compute anew: our layout against the history before the rubric.

Both layouts carry the same words about the same dialogues: our ``PromptBuilder`` puts the rubric first, then the
history, then the request; the paper's puts the history first and the rubric after it, so that a prefix cache can reuse
the history alone. A real server counts: any OpenAI-compatible one that reports
``usage.prompt_tokens_details.cached_tokens``, named by ``--base-url`` and ``--model`` or by ``STEER_PREFILL_URL`` and
``STEER_PREFILL_MODEL``. Every session (a layout and one dialogue, or one group) has a first line of its own, so that it
starts with nothing in the cache. Its requests go one after another; on llama.cpp each rollout keeps to its own slot,
or siblings would throw out each other's history. Where the server tokenises too (llama.cpp), a brute-force search over
all earlier prompts of the session says what one cache for all dialogues (vLLM's, up to its blocks) would hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any
from uuid import uuid4

from benchmarks.rollout.row import Row
from steer_verl.errors import TutorError
from steer_verl.mini import answers, dialogues
from steer_verl.mini.world import PARTS, Scene, Split, draw_scene
from steer_verl.tutor.prompt import Prompt, PromptBuilder, Rubric, Task
from steer_verl.types import DialogueKind, QuestionOrigin, Seed, Turn, TutorRequest, Unscored, UnscoredReason, UserTurn

TURNS, GROUP, ALONE = 8, 5, 3
DEMAND = 0.35
GROUP_OF = f"{GROUP} rollouts of a group, turn by turn"
OTHER_IS = "history first, rubric after"
URL_VARIABLE, MODEL_VARIABLE = "STEER_PREFILL_URL", "STEER_PREFILL_MODEL"
UNJUDGED = Unscored(reason=UnscoredReason.TIMEOUT)
"""No prompt shows what earlier answers scored."""

Messages = list[dict[str, Any]]


def ours(prompt: Prompt) -> Messages:
    """What our tutor sends."""
    return prompt.messages()


def rubric_last(prompt: Prompt) -> Messages:
    """The same words in the paper's order: history, rubric, request."""
    return [{"role": "user", "content": "".join((*map(str, prompt.history), prompt.system, "\n", prompt.request))}]


LAYOUTS: dict[str, Callable[[Prompt], Messages]] = {"ours": ours, "rubric last": rubric_last}


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
    closed: list[Turn] = []
    found = []
    for place, planned in enumerate(seed.turns):
        user = planned if place == 0 else UserTurn(text=dialogues.adaptive_question(scene, rng))
        answer = say(scene, user.text, rng)
        found.append(_exchange(seed, closed, user, answer))
        closed.append(Turn(user=user, origin=QuestionOrigin.TUTOR, answer=answer, verdict=UNJUDGED))
    return found


def _exchange(seed: Seed, closed: Sequence[Turn], user: UserTurn, answer: str) -> TutorRequest:
    following = len(closed) + 1
    hint = seed.turns[following] if following < len(seed.turns) else None
    return TutorRequest(seed=seed, turns=tuple(closed), user=user, answer=answer, static_next_turn=hint)


def session(layout: str, played: Sequence[Sequence[TutorRequest]]) -> Iterator[Messages]:
    """The requests of dialogues that run side by side, turn by turn, behind a first line that no other session has."""
    builder = PromptBuilder(Rubric.load(), image=None, secret=b"the same marks in every run")
    first_line = f"Session {uuid4().hex}.\n"
    for turn in zip(*played, strict=True):
        for exchange in turn:
            task = Task.SCORE if exchange.static_next_turn is None else Task.BOTH
            first, *rest = LAYOUTS[layout](builder.build(exchange, task))
            yield [{**first, "content": first_line + first["content"]}, *rest]


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading tokens both have."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def uncached(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that begin no earlier prompt, in all: what a prefix cache without limits computes."""
    return sum(
        len(prompt) - max((common_prefix(prompt, seen) for seen in prompts[:place]), default=0)
        for place, prompt in enumerate(prompts)
    )


@dataclass(frozen=True)
class Cost:
    """Of one session, in tokens of prompts: as the server counts, and as brute force does where it tokenises."""

    scenario: str
    layout: str
    dialogues: int
    prompt: int
    cached: int
    brute_force: int | None

    @property
    def computed(self) -> float:
        """Tokens that were not cached, by the server's own count, for one dialogue."""
        return (self.prompt - self.cached) / self.dialogues


class Server:
    """An OpenAI-compatible server that is asked for one token at a time.

    Args:
        base_url: with its ``/v1``.
        model: by the name that the server knows.
    """

    def __init__(self, base_url: str, model: str) -> None:
        import httpx

        self.base_url, self.model = base_url.rstrip("/"), model
        self.http = httpx.Client(timeout=600)
        self.root = self.base_url.removesuffix("/v1")
        self.slots = self._slots()

    def _slots(self) -> int:
        """Caches that a request can choose from; 0 where it cannot (only llama.cpp has them)."""
        import httpx

        try:
            reply = self.http.get(f"{self.root}/props")
        except httpx.HTTPError as error:
            raise TutorError(f"{self.root}: {error}; start a server and name it by {URL_VARIABLE}") from None
        return int(reply.json().get("total_slots", 0)) if reply.is_success else 0

    def count(self, messages: Messages, rollout: int = 0) -> tuple[int, int]:
        """Tokens of the prompt, and how many of them were cached. A rollout returns to its own slot.

        Raises:
            TutorError: the server does not answer, or does not say what was cached.
        """
        body = {"model": self.model, "messages": messages, "max_tokens": 1, "temperature": 0}
        if self.slots:
            body["id_slot"] = rollout % self.slots
        try:
            usage = self._post(f"{self.base_url}/chat/completions", body)["usage"]
            return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]
        except (KeyError, TypeError):
            raise TutorError(
                f"{self.base_url}: usage.prompt_tokens_details.cached_tokens is missing; "
                "have the server report it (vLLM: --enable-prompt-tokens-details)"
            ) from None

    def tokens(self, messages: Messages) -> list[int] | None:
        """The prompt as the server reads it; ``None`` where it cannot be asked (only llama.cpp can)."""
        if not self.slots:
            return None
        text = self._post(f"{self.root}/apply-template", {"messages": messages})["prompt"]
        found = self._post(f"{self.root}/tokenize", {"content": text, "add_special": True, "parse_special": True})
        return list(found["tokens"])

    def _post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        import httpx

        try:
            reply = self.http.post(url, json=body).raise_for_status()
        except httpx.HTTPError as error:
            raise TutorError(f"{url}: {error}; start a server and name it by {URL_VARIABLE}") from None
        return dict(reply.json())


def play(server: Server, scenario: str, layout: str, played: Sequence[Sequence[TutorRequest]]) -> Cost:
    """One session, one request after another."""
    prompt = cached = 0
    seen: list[list[int]] = []
    for number, messages in enumerate(session(layout, played)):
        tokens = server.tokens(messages)
        seen += [] if tokens is None else [tokens]
        counted = server.count(messages, number % len(played))
        prompt, cached = prompt + counted[0], cached + counted[1]
    return Cost(scenario, layout, len(played), prompt, cached, uncached(seen) if seen else None)


def scenarios() -> list[tuple[str, list[list[TutorRequest]]]]:
    """Three dialogues, each alone, and five rollouts of one prompt turn by turn."""
    alone = [("one dialogue alone", [dialogue(number)]) for number in range(ALONE)]
    return [*alone, (GROUP_OF, [dialogue(ALONE, rollout) for rollout in range(GROUP)])]


def rows(costs: Sequence[Cost]) -> list[Row]:
    """One for each scenario, mean uncached prompt tokens of a dialogue; the group's by brute force too."""
    found = []
    for scenario in dict.fromkeys(cost.scenario for cost in costs):
        by = {name: [c for c in costs if (c.scenario, c.layout) == (scenario, name)] for name in LAYOUTS}
        found.append(_row(scenario, {name: fmean(c.computed for c in of) for name, of in by.items()}))
        shared = {name: fmean((c.brute_force or 0) / c.dialogues for c in of) for name, of in by.items()}
        if scenario == GROUP_OF and all(shared.values()):
            found.append(_row(f"{scenario}, if all shared one cache (brute force)", shared))
    return found


def _row(scenario: str, mean: dict[str, float]) -> Row:
    what = f"tutor's uncached prompt tokens, {TURNS} turns, {scenario}"
    met = mean["ours"] <= DEMAND * mean["rubric last"]
    return Row(what, "tokens", mean["ours"], mean["rubric last"], f"ratio <= {DEMAND}", met, OTHER_IS)


def steady(server: Server, groups: int = 3) -> list[str]:
    """A note on a whole training, by brute force: groups one after another, the rubric computed before the first."""
    mean = {}
    for layout in LAYOUTS:
        played = [dialogue(100 + number // GROUP, number % GROUP) for number in range((1 + groups) * GROUP)]
        whole, first = ([server.tokens(m) for m in session(layout, of)] for of in (played, played[:GROUP]))
        if not all(whole):
            return []
        mean[layout] = (uncached([t for t in whole if t]) - uncached([t for t in first if t])) / (groups * GROUP)
    return [
        f"prefill, each further group of a training, if all shared one cache (brute force): {mean['ours']:.0f} tokens "
        f"a dialogue, {mean['rubric last']:.0f} with the rubric last, ratio {mean['ours'] / mean['rubric last']:.3f}"
    ]


def notes(costs: Sequence[Cost]) -> list[str]:
    """How far the server's count is from brute force."""
    return [
        f"prefill, {cost.scenario}, {cost.layout}: {cost.prompt} prompt tokens, {cost.prompt - cost.cached} computed "
        f"by the server's count, {cost.brute_force} if all shared one cache (brute force)"
        for cost in costs
        if cost.brute_force is not None
    ]


def measure(base_url: str | None = None, model: str | None = None) -> dict[str, Any]:
    """Every scenario in both layouts; without a server no row and a note that says so."""
    base_url = base_url or os.environ.get(URL_VARIABLE)
    model = model or os.environ.get(MODEL_VARIABLE, "tutor")
    if not base_url:
        return {
            "rows": [],
            "notes": [f"prefill: skipped, no server; name one by {URL_VARIABLE} (and {MODEL_VARIABLE})"],
        }
    try:
        server = Server(base_url, model)
        costs = [play(server, name, layout, played) for name, played in scenarios() for layout in LAYOUTS]
    except TutorError as error:
        return {"rows": [], "notes": [f"prefill: skipped, {error}"]}
    return {
        "rows": [row.as_dict() for row in rows(costs)],
        "notes": notes(costs) + steady(server),
        "costs": [asdict(cost) for cost in costs],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", help=f"of an OpenAI-compatible server, with its /v1; else {URL_VARIABLE}")
    parser.add_argument("--model", help=f"its name of the model; else {MODEL_VARIABLE}, else tutor")
    given = parser.parse_args()
    print(json.dumps(measure(given.base_url, given.model)))
