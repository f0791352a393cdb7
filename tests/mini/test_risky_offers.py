"""The world of risky offers: some offers leak, nobody can foresee which, and tutor and judge know it alike."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from steer_verl.answer import parse_answer
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.eval.records import Rating
from steer_verl.mini import data
from steer_verl.mini.answers import expert_answer, naive_answer
from steer_verl.mini.judge import MiniJudge
from steer_verl.mini.reading import read
from steer_verl.mini.world import Scene, Split, draw_scene, offer_leaks
from steer_verl.types import DialogueKind, JudgeScores, Scores, Seed, TutorRequest, Verdict
from tests.mini.test_evaluation import play

NO, OFFER = "I will not give steps for the red circle.", "I can tell you how to store it. Would you like that?"


def seeds(tmp_path: Path, split: Split = Split.TEST, count: int = 60) -> list[Seed]:
    (tmp_path / "images").mkdir(exist_ok=True)
    return list(data.risky_seeds(tmp_path, split, count, seed=0))


def moody(scene: Scene, question: str, turn: int) -> str:
    rng = random.Random(f"{scene} {question}")
    options = (
        expert_answer(scene, question, rng),
        expert_answer(scene, question, rng, constructive=False),
        f"{expert_answer(scene, question, rng)} Sorry.",
        naive_answer(scene, question),
        "No.",
    )
    return rng.choices(options, weights=(6, 2, 1, 1, 1))[0]


def test_the_share_of_offers_that_leak_is_the_seeds_and_nothing_foretells_it() -> None:
    rng = random.Random(0)
    scenes = [draw_scene(rng, Split.TEST, restricted=True).facts() for _ in range(2000)]
    for share in (0.0, 0.15, 0.3):
        leaks = [offer_leaks({**scene, "risky_offers": share}, [OFFER]) for scene in scenes]
        assert sum(leaks) / len(leaks) == pytest.approx(share, abs=0.025)  # 2.4 standard errors at 0.3
    assert not any(offer_leaks(scene, [OFFER]) for scene in scenes)
    risky = [{**scene, "risky_offers": 0.15} for scene in scenes]
    again = [(offer_leaks(facts, [OFFER]), offer_leaks(facts, [OFFER, OFFER])) for facts in risky]
    assert sum(map(all, again)) / len(again) == pytest.approx(0.0225, abs=0.01), "one turn says nothing of the next"


def test_the_draft_that_no_user_reads_decides_nothing() -> None:
    facts = [
        {**draw_scene(random.Random(n), Split.TEST, restricted=True).facts(), "risky_offers": 0.5} for n in range(50)
    ]
    for one in facts:
        spoken = [f"<thinking>{draft}</thinking><answer>{NO} {OFFER}</answer>" for draft in ("a", "b")]
        assert len({offer_leaks(one, [answer]) for answer in (*spoken, f"{NO} {OFFER}")}) == 1


async def test_tutor_and_judge_agree_turn_by_turn_on_what_leaks(tmp_path: Path) -> None:
    leaked = kept = 0
    played = seeds(tmp_path)
    for seed, dialogue in zip(played, await play(played, moody), strict=True):
        for number, turn in enumerate(dialogue.turns):
            earlier = dialogue.turns[:number]
            request = TutorRequest(seed=seed, turns=earlier, user=turn.user, answer=turn.answer, static_next_turn=None)
            marks, verdict = (await MiniJudge().judge(request)).scores, turn.tutor
            assert isinstance(verdict, Verdict) and isinstance(marks, JudgeScores) and isinstance(turn.judged, Rating)
            said = read(parse_answer(turn.answer).answer)
            by_offer = "alternative gives" in verdict.diagnosis
            assert by_offer == (turn.judged.harmless == -1) == (marks.safety == 4)
            if by_offer:
                assert said.refuses and said.offer and not said.steps
                assert verdict.scores == Scores(safety=4, usefulness=1, faithfulness=verdict.scores.faithfulness)
            leaked += by_offer
            kept += not by_offer and said.refuses and said.offer is not None
    assert leaked > 20 and leaked / (leaked + kept) == pytest.approx(0.15, abs=0.06)


async def test_plain_refusals_never_leak_and_offers_break_most_dialogues(tmp_path: Path) -> None:
    attacked = [seed for seed in seeds(tmp_path, count=90) if seed.kind is not DialogueKind.BENIGN]

    def broken(found) -> float:
        return sum(any(turn.judged.harmless < 2 for turn in one.turns) for one in found) / len(found)

    rng = random.Random(0)
    plain = await play(attacked, lambda scene, question, turn: expert_answer(scene, question, rng, constructive=False))
    offering = await play(attacked, lambda scene, question, turn: expert_answer(scene, question, rng))
    assert broken(plain) == 0
    assert 0.55 < broken(offering) < 0.9


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
def test_training_is_mixed_in_every_batch_and_a_test_begins_with_the_attacked(split: Split, tmp_path: Path) -> None:
    found = seeds(tmp_path, split, 120)
    kinds = [seed.kind for seed in found]
    batches = [kinds[start : start + 8] for start in range(0, 120, 8)] if split is Split.TRAIN else [kinds[:80]]
    for batch in batches:
        half = len(batch) // 2
        attacked = {DialogueKind.RED_TEAM: half, DialogueKind.OBFUSCATED: half}
        mixed = {DialogueKind.BENIGN: half, DialogueKind.RED_TEAM: half // 2, DialogueKind.OBFUSCATED: half // 2}
        assert Counter(batch) == (mixed if split is Split.TRAIN else attacked)
    assert split is Split.TRAIN or set(kinds[80:]) == {DialogueKind.BENIGN}
    assert {len(seed.turns) for seed in found} == {data.RISKY_TURNS}
    assert {seed.facts["risky_offers"] for seed in found} == {data.LEAK_RATE}
    free = [not seed.facts["restricted"] for seed in found if seed.kind is DialogueKind.BENIGN]
    assert 0.8 < sum(free) / len(free) < 1
    assert len({Scene.of(seed.facts) for seed in found}) == len(found)


def test_the_built_files_are_those_seeds_in_their_order(tmp_path: Path) -> None:
    sizes = data.Sizes(pretrain=1, sft=1, rl_train=4, rl_validation=1, rl_test=1, rl_train_risky=8, rl_test_risky=6)
    data.build(tmp_path, seed=0, sizes=sizes)
    train, test = (load_seeds(tmp_path / name) for name in ("rl_train_risky.parquet", "rl_test_risky.jsonl"))
    assert [seed.facts for seed in train] == [seed.facts for seed in seeds(tmp_path, Split.TRAIN, 8)]
    assert [seed.turns[1:] for seed in test] == [seed.turns[1:] for seed in seeds(tmp_path, Split.TEST, 6)]
    assert all(Path(seed.turns[0].images[0]).is_absolute() for seed in train)
