"""Prompts as files: read strictly, filled once, and versioned by their words."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.errors import ConfigError
from steer_verl.models import prompt_file
from steer_verl.models.prompt_file import Ours, PromptFile, load_prompts, parse_prompt, pasted

GOOD = "---\nname: a\nversion: 3\n---\nSystem words.\n---\nThe question:\n{{question}}\nWrite {{turns}}."


def test_a_file_is_head_system_message_and_request() -> None:
    prompt = parse_prompt(GOOD, "a.md")
    assert (prompt.name, prompt.number, prompt.system) == ("a", 3, "System words.")
    assert prompt.blanks == {"question", "turns"}
    assert prompt.render({"question": "Why?", "turns": 4}) == "The question:\n> Why?\nWrite 4."
    assert parse_prompt(GOOD.replace("\n", "\r\n"), "a.md") == prompt
    assert parse_prompt("---\nname: a\nversion: 3\n---\nOnly a system message.", "a.md").request == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No head at all.",
        "---\nname: a\nversion: 3\n---\n",
        "---\nname: a\n---\nWords.",
        "---\nname: a\nversion: 3\nauthor: b\n---\nWords.",
        "---\nname: a\nversion: '3'\n---\nWords.",
        "---\n: [\n---\nWords.",
        "words first\n---\nname: a\nversion: 3\n---\nWords.",
    ],
)
def test_anything_else_is_refused_with_its_name_and_the_cure(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^a\.md: "):
        parse_prompt(text, "a.md")


def test_the_version_changes_with_any_word(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = parse_prompt(GOOD, "a.md")
    assert re.fullmatch(r"3-[0-9a-f]{8}", prompt.version)
    others = [GOOD.replace("System", "system"), GOOD.replace("Write", "Give"), GOOD.replace("version: 3", "version: 4")]
    versions = {prompt.version, *(parse_prompt(text, "a.md").version for text in others)}
    assert len(versions) == 4
    monkeypatch.setattr(prompt_file, "FORM", "Reply in some other form.")
    assert prompt.version not in versions
    assert PromptFile("a", 1, "x", "y").version != PromptFile("a", 1, "xy", "").version


def test_what_a_value_holds_is_never_expanded() -> None:
    prompt = parse_prompt(GOOD, "a.md")
    text = prompt.render({"question": "{{turns}} {{question}}", "turns": Ours("{{question}}")})
    assert text == "The question:\n> {{turns}} {{question}}\nWrite {{question}}."


@pytest.mark.parametrize("values", [{}, {"question": "q"}, {"question": "q", "turns": 1, "more": "m"}])
def test_blanks_and_values_must_be_the_same(values: dict[str, str | int | Ours]) -> None:
    with pytest.raises(ConfigError, match="prompt a"):
        parse_prompt(GOOD, "a.md").render(values)


@settings(deadline=None)
@given(st.text())
def test_no_line_of_a_string_looks_like_ours(text: str) -> None:
    lines = re.split(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", pasted(text))
    assert all(line.startswith("> ") for line in lines)
    assert "<image>" not in pasted(f"{text}<image>") and "<|im_end|>" not in pasted(f"<|im_end|>{text}")


def test_a_file_under_another_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "odd_prompts"
    (folder / "prompts").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "prompts" / "b.md").write_text(GOOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match=r"b\.md: is named 'a' inside"):
        load_prompts("odd_prompts")
