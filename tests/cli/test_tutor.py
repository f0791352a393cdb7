"""``steer tutor``: what is printed, written and returned, against real HTTP servers."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from steer_verl.cli.tutor import app
from steer_verl.cli.tutor_check import as_json, suggestions
from steer_verl.transcripts import TranscriptLog
from steer_verl.tutor.probes import Finding
from steer_verl.types import (
    DialogueKind,
    QuestionOrigin,
    Scores,
    StopReason,
    Trajectory,
    Turn,
    UserTurn,
    Verdict,
)
from tests.models.fault_server import MODEL, FaultServer, Request, Step, good, says, status

SECRET = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("STEER_TUTOR_API_KEY", SECRET)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A tutor that scores by what the last answer says: "scores N" gives N on every axis."""
    with FaultServer(choose=by_answer).in_thread() as running:
        yield running


def by_answer(request: Request) -> Step:
    said = re.findall(r"scores (\d+)", request.text)
    return good((int(said[-1]),) * 3) if said else good()


def steer_tutor(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert SECRET not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def at(server: FaultServer) -> tuple[str, ...]:
    return ("--base-url", server.base_url, "--model", MODEL)


def test_check_of_a_good_server(server: FaultServer, tmp_path: Path) -> None:
    result = steer_tutor(
        "check", *at(server), "--trials", 2, "--json", tmp_path / "deep" / "c.json", "tutor.endpoint.max_concurrency=2"
    )
    assert result.exit_code == 0, result.output
    assert "++actor_rollout_ref.rollout.custom.steer.tutor.endpoint.max_concurrency=" in result.output
    assert all(word in result.output for word in ("reach", "sight", "schema", "2/2", "4 of 10", "forgery"))
    stored = json.loads((tmp_path / "deep" / "c.json").read_text())
    assert stored["usable"] and stored["findings"][0]["probe"] == "reach"
    assert SECRET not in (tmp_path / "deep" / "c.json").read_text()


def test_what_was_found_is_shown_also_where_its_file_cannot_be_written(server: FaultServer, tmp_path: Path) -> None:
    """A folder stands where the file belongs."""
    for name in ("c.json", "out/calibration.json", "r.json"):
        (tmp_path / name).mkdir(parents=True)
    few = ("--trials", 1, "--no-images", "tutor.endpoint.max_concurrency=1")
    for shown, words in (
        ("reach", ("check", *at(server), *few, "--json", tmp_path / "c.json")),
        ("Spearman", ("calibrate", labelled(tmp_path), *at(server), "--out", tmp_path / "out")),
        ("pairs swap", ("replay", stored_dialogues(tmp_path), *at(server), "--out", tmp_path / "r.json")),
    ):
        result = steer_tutor(*words)
        assert result.exit_code == 1 and shown in result.output, result.output
        assert re.search(r"json: cannot be written", result.output), result.output


def test_check_without_pictures_sends_none(server: FaultServer) -> None:
    result = steer_tutor("check", *at(server), "--trials", 1, "--no-images", "tutor.endpoint.max_concurrency=1")
    assert result.exit_code == 0 and "judges blind" in result.output
    assert "data:image" not in str(server.bodies)


def test_check_returns_1_and_says_how_to_fix_it(tmp_path: Path) -> None:
    with FaultServer(status(401, f"bad key {SECRET}")).in_thread() as server:
        result = steer_tutor("check", *at(server))
    assert result.exit_code == 1 and "set the environment variable STEER_TUTOR_API_KEY" in result.output


def test_check_of_a_configuration_with_a_panel_and_a_dead_mirror(server: FaultServer, tmp_path: Path) -> None:
    with FaultServer().in_thread() as dead:
        pass
    (tmp_path / "tutor.yaml").write_text(
        f"""tutor:
  endpoint:
    {{base_url: {server.base_url}, model: {MODEL}, max_concurrency: 1, mirrors: [{{base_url: {dead.base_url}}}]}}
  panel:
    judges:
      - endpoint: {{base_url: "verl://reward_model", model: x}}
"""
    )
    result = steer_tutor("check", "--config", tmp_path / "tutor.yaml", "--trials", 1)
    assert result.exit_code == 1
    assert "tutor.endpoint.mirrors[0]" in result.output and "cannot be reached" in result.output
    assert "exists only while a training runs" in " ".join(result.output.split())


def test_a_tutor_without_servers_has_nothing_to_check(tmp_path: Path) -> None:
    (tmp_path / "tutor.yaml").write_text("tutor: {kind: mini}\n")
    result = steer_tutor("check", "--config", tmp_path / "tutor.yaml")
    assert result.exit_code == 0 and "nothing to check" in result.output


def test_suggestions_can_be_pasted() -> None:
    findings = [
        Finding("tutor.endpoint", "reach", True, suggest={"images": False}),
        Finding("tutor.endpoint", "schema", True, suggest={"json_schema": "off", "max_tokens": 320}),
        Finding("tutor.endpoint.mirrors[0]", "schema", True, suggest={"json_schema": "auto"}),
        Finding("tutor.panel.judges[0].endpoint", "concurrency", False, hint="no", suggest={"timeout": 30}),
    ]
    prefix = "++actor_rollout_ref.rollout.custom.steer.tutor.endpoint"
    assert suggestions(findings) == [
        f"{prefix}.images=false",
        f"{prefix}.json_schema=off",
        f"{prefix}.max_tokens=320",
        "# in the yaml: tutor.panel.judges[0].endpoint.timeout: 30",
    ]
    assert as_json(findings)["usable"] is False and as_json(findings[:3])["usable"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give either --config FILE or both --base-url URL and --model NAME"),
        (("--base-url", "http://x/v1"), "give either"),
        (("--config", "none.yaml"), "cannot be read"),
        (("--base-url", "http://x/v1", "--model", "m", "tutor.endpoint.tmeout=3"), "unknown key"),
        (("--base-url", "http://x/v1", "--model", "m", "nonsense"), "not of the form key=value"),
    ],
)
def test_a_wrong_command_line_is_one_line(words: tuple[str, ...], message: str) -> None:
    result = steer_tutor("check", *words)
    assert result.exit_code == 1 and message in result.output and result.output.count("\n") == 1


def test_the_folder_that_one_is_in_is_no_file(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = steer_tutor("replay", stored_dialogues(tmp_path), *at(server), "--out", ".")
    assert result.exit_code == 1 and "it is a folder: name a file" in result.output


def labelled(folder: Path, rows: int = 12) -> Path:
    lines = [f"question {n},the answer scores {n % 10 + 1},{n % 10 + 1}" for n in range(rows)]
    path = folder / "people.csv"
    path.write_text("question,answer,human_safety\n" + "\n".join(lines) + "\n")
    return path


def test_calibrate_stores_its_figures_and_pays_once(server: FaultServer, tmp_path: Path) -> None:
    csv, out = labelled(tmp_path), tmp_path / "out"
    first = steer_tutor("calibrate", csv, "--out", out, *at(server), "--limit", 8)
    assert first.exit_code == 0, first.output
    stored = json.loads((out / "calibration.json").read_text())
    assert stored["n"] == 8 and stored["figures"]["mae"]["value"] == 0 and stored["unscored"] == {}
    assert stored["tutor"]["models"][0]["model"] == MODEL and stored["usage"]["requests"] == 8
    asked = server.requests

    again = steer_tutor("calibrate", csv, "--out", out, *at(server), "--limit", 8)
    assert again.exit_code == 0 and server.requests == asked
    whole = steer_tutor("calibrate", csv, "--out", out, *at(server))
    assert whole.exit_code == 0 and server.requests == asked + 5  # four answers, and the check before them
    stored = json.loads((out / "calibration.json").read_text())
    assert stored["n"] == 12 and stored["usage"]["requests"] == 12
    assert (out / "reliability.png").is_file() and "Spearman" in (out / "calibration.md").read_text()


def test_figures_are_made_again_without_a_server_and_another_tutor_is_asked(tmp_path: Path) -> None:
    csv, out = labelled(tmp_path), tmp_path / "out"
    with FaultServer(choose=by_answer).in_thread() as server:
        assert steer_tutor("calibrate", csv, "--out", out, *at(server)).exit_code == 0
        asked = server.requests
        assert steer_tutor("calibrate", csv, "--out", out, *at(server), "tutor.endpoint.temperature=1").exit_code == 0
        assert server.requests == 2 * asked
    again = steer_tutor("calibrate", csv, "--out", out, *at(server), "--threshold", 6)
    assert again.exit_code == 0 and json.loads((out / "calibration.json").read_text())["breach_threshold"] == 6
    more = steer_tutor("calibrate", labelled(tmp_path, 13), "--out", out, *at(server))
    assert more.exit_code == 1 and "cannot be reached" in more.output


def test_calibrate_goes_on_after_an_interrupt(tmp_path: Path) -> None:
    def interrupting(request: Request) -> Step:
        if request.number == 5:  # after the check and four answers
            os.kill(os.getpid(), signal.SIGINT)
        return by_answer(request)

    csv, out, one = labelled(tmp_path), tmp_path / "out", "tutor.endpoint.max_concurrency=1"
    with FaultServer(choose=interrupting).in_thread() as server:
        stopped = steer_tutor("calibrate", csv, "--out", out, *at(server), one)
        assert stopped.exit_code == 130 and "the same command goes on from here" in stopped.output
        before = server.requests
        assert steer_tutor("calibrate", csv, "--out", out, *at(server), one).exit_code == 0
        assert server.requests <= before + 1 + 12 - 4 + 1
    assert json.loads((out / "calibration.json").read_text())["scored"] == 12


def test_calibrate_counts_what_was_not_scored(tmp_path: Path) -> None:
    def moody(request: Request) -> Step:
        return says("hm") if "scores 3" in request.text else by_answer(request)

    with FaultServer(choose=moody).in_thread() as server:
        result = steer_tutor("calibrate", labelled(tmp_path), "--out", tmp_path / "out", *at(server))
    assert result.exit_code == 0 and "11 answers scored, 1 unscored (1 bad_json)" in result.output


def test_an_unusable_tutor_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    with FaultServer(status(403)).in_thread() as server:
        result = steer_tutor("calibrate", labelled(tmp_path), "--out", tmp_path / "out", *at(server))
        assert server.requests == 1
    assert result.exit_code == 1 and "refuses the key" in result.output


def stored_dialogues(folder: Path) -> Path:
    log = TranscriptLog(folder / "transcripts")
    for rollout, safety in enumerate((10, 8, 2, 6)):
        turns = tuple(
            Turn(
                user=UserTurn(text=f"question {n}"),
                origin=QuestionOrigin.SEED,
                answer=f"<thinking>hm</thinking><answer>it scores {11 - safety} to the other</answer>",
                verdict=Verdict(scores=Scores(safety=safety, usefulness=safety, faithfulness=safety)),
            )
            for n in range(2)
        )
        record = Trajectory(
            seed_id="s",
            kind=DialogueKind.RED_TEAM,
            turns=turns,
            stop=StopReason.COMPLETED,
            step=1,
            uid="u",
            rollout=rollout,
        )
        log.append(record)
    return log.path.parent


def test_replay_with_the_opposite_tutor(server: FaultServer, tmp_path: Path) -> None:
    folder, out = stored_dialogues(tmp_path), tmp_path / "replay.json"
    result = steer_tutor("replay", folder, *at(server), "--out", out)
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert figures["scores"]["safety"] == {
        **figures["scores"]["safety"],
        "before": 6.5,
        "now": 4.5,
        "spearman": pytest.approx(-1),
    }
    assert figures["groups"]["swapped"] == 6 and figures["groups"]["best_changed"] == 1
    assert figures["breaches"] == {"threshold": 4, "both": 0, "only_before": 1, "only_now": 2, "neither": 1}
    assert "6 of 6 pairs swap" in result.output

    asked = server.requests
    assert steer_tutor("replay", folder, *at(server), "--out", out).exit_code == 0 and server.requests == asked
    (attempts,) = (tmp_path / "replay.judgements").glob("*/attempts")
    counted = steer_tutor("log", attempts)
    assert counted.exit_code == 0 and "ok 9" in counted.output  # eight turns, and the check before them


def test_replay_with_the_embedded_tutor_asks_no_server(tmp_path: Path) -> None:
    (tmp_path / "tutor.yaml").write_text("tutor: {kind: mini}\nreward: {normalization: tenth}\n")
    result = steer_tutor(
        "replay", stored_dialogues(tmp_path), "--config", tmp_path / "tutor.yaml", "--out", tmp_path / "r.json"
    )
    figures = json.loads((tmp_path / "r.json").read_text())
    assert result.exit_code == 0 and figures["unscored_now"] == figures["turns"] == 8  # it was not told the truth
    assert figures["compared"] == 0 and figures["return"]["now"] is None


@pytest.mark.parametrize("command", ["replay", "log"])
def test_an_empty_folder_is_named(command: str, tmp_path: Path) -> None:
    words = ("--base-url", "http://x/v1", "--model", "m") if command == "replay" else ()
    result = steer_tutor(command, tmp_path, *words)
    assert result.exit_code == 1 and "give the folder of" in result.output
