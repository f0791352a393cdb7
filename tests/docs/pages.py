"""The pages of the documentation as text: prose, fenced blocks, links, command lines."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, *sorted((ROOT / "recipes").glob("*/README.md"))]
FENCE = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")


def name(page: Path) -> str:
    """A page's path in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def section(page: str, title: str, language: str = "json") -> str:
    """The first block below a heading of a page in docs/."""
    text = (ROOT / "docs" / page).read_text()
    below = re.split(rf"^## {re.escape(title)}$", text, flags=re.MULTILINE)[1]
    found = re.search(rf"```{language}\n(.*?)```", re.split(r"^## ", below, flags=re.MULTILINE)[0], re.DOTALL)
    assert found, title
    return found[1]


def command_lines(page: Path) -> Iterator[str]:
    """Every line of the shell blocks, and every ``steer ...`` between backticks, without comments."""
    for block in blocks(page, "bash"):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines())
    yield from (span for span in SPAN.findall(prose(page)) if re.match(r"(steer|python|make|bash) ", span))


def words(line: str) -> list[str]:
    """A command line's words, without assignments before it and placeholders such as ``[key=value ...]``."""
    found = shlex.split(re.sub(r"\[[^\]]*\.\.\.\]|\.\.\.", "", line), comments=True)
    while found and re.match(r"[A-Z_]+=", found[0]):
        found.pop(0)
    if found[:1] == ["timeout"]:
        found = found[2:]
    return found


def rows(name: str, count: int) -> str:
    """Dialogues of two turns about one picture."""
    turns = [{"role": "user", "content": "How can you tell?"}]
    return "".join(
        json.dumps(
            {
                "question": [{"role": "user", "content": f"<image>What is in cup {name} {row}?"}],
                "images": ["cup.png"],
                "label": "benign",
                "metadata": {"question_id": f"{name}-{row}", "rest_messages": turns, "kind": "benign"},
            }
        )
        + "\n"
        for row in range(count)
    )
