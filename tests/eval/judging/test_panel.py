"""A panel's word against a brute-force twin, and what becomes of members that fail."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.errors import ConfigError, TutorError
from steer_verl.eval.config import JudgeSettings
from steer_verl.eval.judging import build_judge
from steer_verl.eval.judging.endpoint import EndpointJudge
from steer_verl.eval.judging.mini import MiniEvalJudge
from steer_verl.eval.judging.panel import PanelJudge, combined
from steer_verl.eval.records import Judged, Rating, Refusal, Unrated
from steer_verl.models.failure import AgentFailed
from steer_verl.models.log import read_log
from tests.data.role_server import endpoint
from tests.eval.judging.cases import case, marks
from tests.models.fault_server import FaultServer, Step, says, status
from tests.models.memory import Bill, MemoryCache

LEVELS = ["none", "partial", "full"]


def twin(values: list[int], combine: str) -> int:
    """The panel's arithmetic with exact fractions, by walking down the scale: the nearest, of two the lower."""
    ordered = sorted(values)
    if combine == "min":
        return ordered[0]
    middle = Fraction(ordered[(len(values) - 1) // 2] + ordered[len(values) // 2], 2)
    exact = middle if combine == "median" else Fraction(sum(values), len(values))
    return min(range(-3, 4), key=lambda level: (abs(level - exact), level))


def twin_refusal(levels: list[str]) -> str:
    """The least level that is reached by more than half when counted from its end, a tie to the more refusing."""
    return next(
        level for n, level in enumerate(LEVELS) if sum(LEVELS.index(said) <= n for said in levels) * 2 > len(levels)
    )


ratings = st.builds(
    Rating,
    judge=st.sampled_from(["a", "b"]),
    harmless=st.integers(-3, 3),
    helpful=st.integers(0, 3),
    refusal=st.sampled_from([*Refusal, None]),
)
lost = st.builds(Unrated, judge=st.just("c"), reason=st.sampled_from(["refusal", "length"]))


@settings(max_examples=300, deadline=None)
@given(st.lists(ratings | lost, min_size=1, max_size=6), st.sampled_from(["min", "median", "mean"]), st.integers(1, 6))
def test_the_panels_word_is_the_twins(opinions: list[Judged], combine: Any, quorum: int) -> None:
    word = combined("panel", opinions, combine, quorum)
    given = [opinion for opinion in opinions if isinstance(opinion, Rating)]
    if len(given) < quorum:
        assert isinstance(word, Unrated) and (word.judge, word.reason) == ("panel", "quorum")
        return
    assert isinstance(word, Rating) and word.judge == "panel" and word.restricted is None
    assert word.harmless == twin([one.harmless for one in given], combine)
    assert word.helpful == twin([one.helpful for one in given], combine)
    levels = [one.refusal.value for one in given if one.refusal is not None]
    assert (word.refusal.value if word.refusal else None) == (twin_refusal(levels) if levels else None)


def test_a_majority_decides_on_refusal_and_a_tie_is_the_more_refusing() -> None:
    for size in (1, 2, 3, 4, 5):
        for levels in itertools.product(LEVELS, repeat=size):
            said = [Rating(judge="j", harmless=3, helpful=3, refusal=Refusal(level)) for level in levels]
            word = combined("p", said, "median", 1)
            assert isinstance(word, Rating) and word.refusal is not None
            majority = [level for level in LEVELS if levels.count(level) * 2 > size]
            assert word.refusal.value == majority[0] if majority else True
            if size == 2:
                assert word.refusal.value == max(levels, key=LEVELS.index)
    assert twin_refusal(["none", "partial", "full"]) == "partial"


def test_halves_of_negative_marks_go_down_and_the_strictest_member_says_why() -> None:
    pair = [
        Rating(judge="a", harmless=-1, helpful=3, why="mild"),
        Rating(judge="b", harmless=-2, helpful=0, why="strict"),
    ]
    for combine in ("median", "mean"):
        word = combined("p", pair, combine, 2)  # type: ignore[arg-type]
        assert isinstance(word, Rating) and (word.harmless, word.helpful, word.why) == (-2, 1, "strict")


# --- over HTTP -------------------------------------------------------------------------------------------------------


def panel(*servers: FaultServer, **settings: Any) -> JudgeSettings:
    first, *others = (endpoint(server, max_retries=0, reasks=0) for server in servers)
    return JudgeSettings(endpoint=first, panel=[{"endpoint": other} for other in others], **settings)


async def rated(tmp_path: Path, bill: Bill, cache: MemoryCache, *steps: Step, **settings: Any) -> Any:
    async with FaultServer(steps[0]) as a, FaultServer(steps[1]) as b, FaultServer(steps[2]) as c:
        judge = build_judge(panel(a, b, c, **settings), tmp_path, cache=cache)
        try:
            return await judge.rate(case(), bill.place)
        finally:
            await judge.close()


async def test_every_members_word_is_kept_and_the_cost_of_all_is_on_the_account(tmp_path: Path) -> None:
    bill, cache = Bill(), MemoryCache()
    word = await rated(tmp_path, bill, cache, marks(3, 3), marks(1, 2, "full"), marks(-2, 0, "full"))
    assert (word.judged.harmless, word.judged.helpful, word.judged.refusal) == (1, 2, Refusal.FULL)
    assert [opinion.harmless for opinion in word.opinions] == [3, 1, -2]
    names = [opinion.judge for opinion in word.opinions]
    assert names == [names[0], f"{names[0]}#2", f"{names[0]}#3"]
    assert word.judged.judge == f"median of 3/3: {', '.join(names)}"
    assert bill.usage.requests == 3 and len(cache.kept) == 3
    assert len(list(read_log(tmp_path / "calls"))) == 3


async def test_a_member_that_fails_for_good_is_one_opinion_less(tmp_path: Path) -> None:
    steps = (marks(3, 3), says("no object"), marks(1, 1))
    word = await rated(tmp_path, Bill(), MemoryCache(), *steps, quorum=2)
    assert (word.judged.harmless, word.judged.helpful) == (2, 2)
    assert [opinion.status for opinion in word.opinions] == ["ok", "unrated", "ok"]
    word = await rated(tmp_path, Bill(), MemoryCache(), *steps)
    assert word.judged.reason == "quorum" and "2 of 3 rated, 3 must" in word.judged.detail
    assert "bad_json" in word.judged.detail and len(word.opinions) == 3


async def test_what_failed_for_good_is_asked_again_only_where_a_rating_is_missing(tmp_path: Path) -> None:
    """And each time at a place of its own: what was had is replayed."""
    place, cache = Bill().place, MemoryCache()

    async def word(*steps: Step, **how: Any) -> tuple[Any, list[int]]:
        async with FaultServer(steps[0]) as a, FaultServer(steps[1]) as b, FaultServer(steps[2]) as c:
            settings = panel(a, b, c, quorum=how.get("quorum"))
            judge = build_judge(settings, tmp_path, retries=how.get("retries", 0), cache=cache)
            try:
                return await judge.rate(case(), place), [a.requests, b.requests, c.requests]
            finally:
                await judge.close()

    bad = says("no object")
    first, asked = await word(marks(3), bad, marks(1), quorum=2)
    assert isinstance(first.judged, Rating) and asked == [1, 1, 1]
    again, asked = await word(marks(0), marks(0), marks(0), quorum=2, retries=1)
    assert again == first and asked == [0, 0, 0], "a rating that there is stays"
    lost, asked = await word(bad, marks(0), bad, retries=1)
    assert (
        lost.judged.reason == "quorum" and asked == [0, 1, 0]
        if isinstance(lost.judged, Unrated)
        else asked == [0, 1, 0]
    )


async def test_a_member_that_fails_for_the_moment_puts_off_and_the_others_are_paid_once(tmp_path: Path) -> None:
    place, cache = Bill().place, MemoryCache()
    async with FaultServer(marks(3)) as a, FaultServer(status(503), marks(1)) as b:
        judge = build_judge(panel(a, b), tmp_path, cache=cache)
        with pytest.raises(AgentFailed) as error:
            await judge.rate(case(), place)
        assert error.value.transient and len(cache.kept) == 1
        word = await judge.rate(case(), place)
        assert isinstance(word.judged, Rating) and word.judged.harmless == 2
        assert (a.requests, b.requests) == (1, 2)
        await judge.close()


async def test_the_first_member_that_cannot_be_used_is_named_by_its_place(tmp_path: Path) -> None:
    async with FaultServer(marks(3, 3)) as a, FaultServer(status(401)) as b:
        judge = build_judge(panel(a, b), tmp_path)
        with pytest.raises(TutorError, match=r"^judge\.panel\[0\]\.endpoint: .*refuses the key"):
            await judge.check()
        await judge.close()


# --- from the settings ------------------------------------------------------------------------------------------------


def test_the_settings_name_the_judge(tmp_path: Path) -> None:
    one = {"base_url": "http://127.0.0.1:1/v1", "model": "org/m", "max_concurrency": 9}
    assert isinstance(build_judge(JudgeSettings(kind="mini"), tmp_path), MiniEvalJudge)
    single = build_judge(JudgeSettings.model_validate({"endpoint": one}), tmp_path, processes=4)
    assert isinstance(single, PanelJudge) and single.name.startswith("org/m@judge-")
    (member,) = single.members
    assert isinstance(member, EndpointJudge) and member.config.max_concurrency == 3
    several = {"endpoint": one, "panel": [{"endpoint": {**one, "model": "other"}}], "combine": "min", "quorum": 1}
    several_judges = build_judge(JudgeSettings.model_validate(several), tmp_path)
    assert isinstance(several_judges, PanelJudge) and several_judges.name.startswith("min of 1/2: org/m@judge-")
    assert not list(tmp_path.iterdir())  # nothing is written before something is asked


def test_a_members_rubric_is_read_early_and_named_by_its_place(tmp_path: Path) -> None:
    one = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    settings = {"endpoint": one, "panel": [{"endpoint": one, "rubric": str(tmp_path / "none.md")}]}
    with pytest.raises(ConfigError, match=r"^judge\.panel\[0\]\.rubric: cannot read"):
        build_judge(JudgeSettings.model_validate(settings), tmp_path)
