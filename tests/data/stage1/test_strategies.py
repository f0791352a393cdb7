"""The strategies are data: built in, extended by a user's file, and refused in one line where that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer_verl.data.stages.stage1.red_team import load_strategies, shuffled
from steer_verl.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    """A strategies file."""
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_framing_goes_with_every_escalation() -> None:
    strategies = load_strategies()
    framings = {strategy.name.split("+")[0] for strategy in strategies}
    assert framings == {
        "roleplay",
        "educational",
        "fiction",
        "reverse_psychology",
        "authority",
        "continuation",
        "hypothetical",
        "emotional_urgency",
    }
    escalations = {strategy.name.split("+")[1] for strategy in strategies}
    assert escalations >= {"yes_ladder", "sunk_cost", "gradual", "hypothetical_escalation"}
    assert len(strategies) == len({s.name for s in strategies}) == len(framings) * len(escalations)


def test_a_users_file_adds_to_both(tmp_path: Path) -> None:
    path = write(
        tmp_path, "framings:\n  - {name: game, text: A game.}\nescalations:\n  - {name: slow, text: Slowly.}\n"
    )
    more = load_strategies(path)
    assert len(load_strategies()) == 40 and len(more) == 9 * 6
    assert {(s.framing, s.escalation) for s in more if s.name == "game+slow"} == {("A game.", "Slowly.")}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("framings:\n  - {name: roleplay, text: Again.}", "'roleplay' stands twice"),
        ("escalations:\n  - {name: x, text: a}\n  - {name: x, text: b}", "'x' stands twice"),
        ("framing: []", "framing: unknown key"),
        ("framings:\n  - {name: x, text: a, weight: 2}", r"framings\.0\.weight"),
        ("framings:\n  - {name: x}", r"framings\.0\.text"),
        ("framings:\n  - {name: 'x y', text: a}", r"framings\.0\.name"),
        ("framings:\n  - {name: x, text: ''}", r"framings\.0\.text"),
        ("- a\n- b", "not a mapping"),
        ("{", "no YAML"),
        ("", "not a mapping"),
    ],
)
def test_a_file_that_cannot_work_is_told_in_one_line(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as error:
        load_strategies(write(tmp_path, text))
    assert "mine.yaml" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_strategies(tmp_path / "none.yaml")


def test_each_seed_has_an_order_of_its_own_that_never_changes() -> None:
    strategies = load_strategies()
    orders = [tuple(s.name for s in shuffled(strategies, f"s:{n}")) for n in range(200)]
    assert len(set(orders)) == 200 and all(sorted(order) == sorted(orders[0]) for order in orders)
    assert orders[7] == tuple(s.name for s in shuffled(strategies, "s:7"))
    firsts = {order[0] for order in orders}
    assert len(firsts) > 30
