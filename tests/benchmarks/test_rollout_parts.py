"""The parts of benchmarks/rollout that need neither Ray nor a training: prefill, estimator, imports."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from benchmarks.gpu.estimator import batch
from benchmarks.rollout import estimator, imports, prefill
from steer_verl.config import tcsr_config
from steer_verl.errors import ConfigError, TutorError
from steer_verl.tcsr import compute_tcsr_advantage, tcsr_advantage
from steer_verl.tutor.prompt import PromptBuilder, Rubric, Task


class CachingServer(BaseHTTPRequestHandler):
    """llama.cpp's addresses over words for tokens, with one cache for all, and the bodies that came."""

    seen: list[list[int]]
    bodies: list[dict[str, Any]]
    slots: int
    reports: bool

    def do_GET(self) -> None:
        self._say({"total_slots": self.slots} if self.slots else {}, 200 if self.slots else 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/apply-template":
            return self._say({"prompt": self._text(body)})
        if self.path == "/tokenize":
            return self._say({"tokens": _words(body["content"])})
        self.bodies.append(body)
        tokens = _words(self._text(body))
        cached = max((_by_hand(tokens, before) for before in self.seen), default=0)
        self.seen.append(tokens)
        usage: dict[str, Any] = {"prompt_tokens": len(tokens)}
        if self.reports:
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        return self._say({"usage": usage})

    def _text(self, body: dict[str, Any]) -> str:
        return " ".join(f"<|{m['role']}|> {m['content']}" for m in body["messages"])

    def _say(self, found: dict[str, Any], status: int = 200) -> None:
        reply = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


def _words(text: str) -> list[int]:
    return [hash(word) for word in text.split()]


def _by_hand(one: list[int], other: list[int]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


@contextmanager
def serving(slots: int = 6, reports: bool = True) -> Iterator[tuple[str, type[CachingServer]]]:
    """Its address with ``/v1``, and what it saw."""
    handler = type("Handler", (CachingServer,), {"seen": [], "bodies": [], "slots": slots, "reports": reports})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", handler
    finally:
        server.shutdown()
        server.server_close()


def test_common_prefix_is_what_counting_by_hand_says() -> None:
    rng = random.Random(0)
    for _ in range(300):
        one, other = ([rng.randint(0, 1) for _ in range(rng.randint(0, 6))] for _ in range(2))
        assert prefill.common_prefix(one, other) == _by_hand(one, other)


def test_uncached_is_the_size_of_the_tree_of_all_prefixes() -> None:
    rng = random.Random(1)
    for _ in range(100):
        prompts = [[rng.randint(0, 2) for _ in range(rng.randint(1, 7))] for _ in range(rng.randint(1, 8))]
        tree = {tuple(prompt[: end + 1]) for prompt in prompts for end in range(len(prompt))}
        assert prefill.uncached(prompts) == len(tree)


def test_both_layouts_carry_the_same_words() -> None:
    builder = PromptBuilder(Rubric.load(), image=None, secret=b"secret")
    for exchange in prefill.dialogue(0):
        prompt = builder.build(exchange, Task.BOTH)
        said = {name: "\n".join(m["content"] for m in layout(prompt)) for name, layout in prefill.LAYOUTS.items()}
        assert sorted(said["ours"].split()) == sorted(said["rubric last"].split())
        assert said["ours"].startswith(prompt.system) and said["rubric last"].startswith(str(prompt.history[0]))
        assert said["rubric last"].index(prompt.system) > said["rubric last"].index(exchange.answer[:20])


def test_a_dialogue_grows_by_what_was_said_and_rollouts_share_the_opening_alone() -> None:
    one, other = prefill.dialogue(3), prefill.dialogue(3, rollout=1)
    assert len(one) == prefill.TURNS and one == prefill.dialogue(3)
    assert one[0].user == other[0].user and one[0].seed == other[0].seed
    assert [e.answer for e in one] != [e.answer for e in other]
    assert [e.static_next_turn is None for e in one] == [False] * 7 + [True]
    for before, after in itertools.pairwise(one):
        assert [(t.user, t.answer) for t in after.turns] == [
            *((t.user, t.answer) for t in before.turns),
            (before.user, before.answer),
        ]


def test_no_session_finds_another_ones_prefix() -> None:
    played = [prefill.dialogue(0)]
    firsts = [next(iter(prefill.session(name, played)))[0]["content"] for name in [*prefill.LAYOUTS] * 2]
    assert len({text.splitlines()[0] for text in firsts}) == 4


def test_the_servers_count_is_brute_force_where_one_cache_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "ALONE", 1)
    with serving() as (url, seen):
        found = prefill.measure(url, "m")
    for cost in found["costs"]:
        beyond = cost["brute_force"] - (cost["prompt"] - cost["cached"])
        assert 0 <= beyond <= 2, "other sessions share the head of the chat, <|role|> Session, and no more"
    assert [row["met"] for row in found["rows"]] == [
        row["ours"] <= prefill.DEMAND * row["other"] for row in found["rows"]
    ]
    assert all(0 < row["ours"] < row["other"] for row in found["rows"]) and len(found["rows"]) == 3
    assert {body["id_slot"] for body in seen.bodies} == {0, 1, 2, 3, 4}
    assert all(body["max_tokens"] == 1 for body in seen.bodies)


def test_a_server_that_cannot_tokenise_gives_rows_without_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "ALONE", 1)
    with serving(slots=0) as (url, seen):
        found = prefill.measure(url, "m")
    assert len(found["rows"]) == 2 and found["notes"] == []
    assert not any("id_slot" in body for body in seen.bodies)


def test_without_a_server_no_row_and_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prefill.URL_VARIABLE, raising=False)
    found = prefill.measure()
    assert found["rows"] == [] and prefill.URL_VARIABLE in found["notes"][0]
    found = prefill.measure("http://127.0.0.1:9/v1", "m")
    assert found["rows"] == [] and "skipped" in found["notes"][0]


def test_a_server_that_hides_its_cache_is_refused() -> None:
    with serving(reports=False) as (url, _), pytest.raises(TutorError, match="cached_tokens is missing"):
        prefill.Server(url, "m").count([{"role": "user", "content": "hello"}])


def test_estimators_row_holds_the_slowest_preset_against_the_demand() -> None:
    times = {2560: {"verl grpo": 1.0, "a": 1.0, "b": 2.0}, 10240: {"verl grpo": 5.0, "a": 9.0, "b": 10.1}}
    ratio, linear = estimator.rows(times, 320)
    assert (ratio.ours, ratio.other, ratio.met) == (10.1, 5.0, False)
    assert linear.ratio == pytest.approx(10.1 / 8) and not linear.met
    assert estimator.rows({2560: times[2560], 10240: {"verl grpo": 5.0, "a": 9.0, "b": 10.0}}, 320)[0].met


def test_both_estimators_take_the_batch_and_give_the_same_shapes() -> None:
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    given = batch(10, 2560)
    ours, other = compute_tcsr_advantage(*given), compute_grpo_outcome_advantage(*given)
    assert [part.shape for part in ours] == [part.shape for part in other] == [torch.Size((10, 2560))] * 2
    timed = tcsr_advantage(*given, tcsr_config(None))
    assert all(torch.equal(one, twin) for one, twin in zip(ours, timed, strict=True)), "what is timed is registered"


def test_estimators_part_measures_every_length() -> None:
    found = estimator.measure(dialogues=5, lengths=(1100, 2200), repeats=1)
    assert list(found["times"]) == ["1100", "2200"] and len(found["rows"]) == 2
    assert all(ms > 0 for times in found["times"].values() for ms in times.values())


def fake(seconds: float, plugged: bool = True) -> imports.Import:
    modules = ["verl", "steer_verl.plugin", "wrapt"] if plugged else ["verl"]
    return imports.Import(seconds, seconds, 0.01, modules, plugged)


def test_imports_row_is_about_paired_differences() -> None:
    """A machine that slows down by seconds slows both of a pair."""
    pairs = [(fake(s + 0.1), fake(s, False)) for s in (3.0, 9.0, 4.0)]
    assert imports.difference(pairs) == pytest.approx(0.1) and imports.row(pairs).met
    assert not imports.row([(fake(s + 0.3), fake(s, False)) for s in (3.0, 9.0, 4.0)]).met


def test_imports_part_names_what_is_added_and_refuses_a_missing_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "import_verl", lambda plugins: fake(1.0, plugins == "auto"))
    found = imports.measure(3)
    assert found["added"] == ["steer_verl.plugin", "wrapt"] and "2 modules" in found["notes"][0]
    monkeypatch.setattr(imports, "import_verl", lambda plugins: fake(1.0, False))
    with pytest.raises(ConfigError, match="not loaded"):
        imports.measure(1)


def test_a_failing_import_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "PROGRAM", "raise ImportError('no verl here')")
    with pytest.raises(ConfigError, match="no verl here"):
        imports.import_verl("none")


def test_the_child_hears_what_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEER_CPU", "1")
    asked = "[os.environ.get('STEER_CPU'), os.environ['VERL_USE_EXTERNAL_PLUGINS']]"
    program = (
        "import json, os; print('noise'); print(json.dumps({'seconds': 1, 'cpu': 1, 'load': 0, 'modules': " + asked
    )
    monkeypatch.setattr(imports, "PROGRAM", program + ", 'plugged': False}))")
    assert imports.import_verl("none").modules == [None, "none"]
