"""An error is one line that a terminal can show, whoever wrote the words in it."""

from __future__ import annotations

import pickle
import shlex
import time
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from steer_verl.errors import MAX_MESSAGE, DataError, SteerError, install_command


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("row 1: bad; mend it", "row 1: bad; mend it"),
        ("one\r\n  two\nthree\u2028four", "one two three four"),
        ("\x1b]0;title\x07name", "\ufffd]0;title\ufffdname"),
        ("\x1b[31mred\x9b0m", "\ufffd[31mred\ufffd0m"),
        ("a\u202egnp.exe", "a\ufffdgnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\ufffdwidth\ufffd"),
        ("half \ud800", "half \ufffd"),
        ("\u597d caf\u00e9 \U0001f469\u200d\U0001f467 a  b", "\u597d caf\u00e9 \U0001f469\u200d\U0001f467 a  b"),
    ],
)
def test_a_message_is_one_line_without_what_a_terminal_obeys(message: str, line: str) -> None:
    assert str(DataError(message)) == line
    assert str(pickle.loads(pickle.dumps(DataError(message)))) == line


def test_a_long_message_is_cut_and_other_arguments_stay() -> None:
    error = SteerError("x" * 10**6, 3)
    assert error.args == ("x" * (MAX_MESSAGE - 1) + "\u2026", 3)


def test_hostile_messages_take_no_time() -> None:
    started = time.process_time()
    for piece in (" ", "\n", " \n", "\x1b", "\u200b"):
        DataError(piece * 10**6)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("extra", sorted(set(metadata.metadata("steer-verl").get_all("Provides-Extra", []))))
def test_what_is_missing_is_installed_by_a_command_that_needs_no_index_to_know_this_project(extra: str) -> None:
    pip, verb, *needs = shlex.split(install_command(extra))
    assert (pip, verb) == ("pip", "install") and "steer" not in install_command(extra)
    wanted = {
        need.name
        for line in metadata.requires("steer-verl") or ()
        if (need := Requirement(line)).marker
        and need.marker.evaluate({"extra": extra})
        and not need.marker.evaluate({"extra": ""})
    }
    assert {Requirement(need).name for need in needs} == wanted


def test_a_tree_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert "'data' extra" in install_command("data")
