"""Is a recipe fit for verl's collection (verl-project/verl-recipe)? ``python recipes/offer.py FOLDER --owner @NAME``

There a recipe is a folder of its own with a README that names its ``REQUIRED_VERL.txt``, which pins verl, and an owner;
nothing in it leads out of it. Prints what is to mend, or the two lines that go with the folder into the collection.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PIN = "REQUIRED_VERL.txt"
UPSTREAM = "https://github.com/verl-project/verl.git"
RELEASE = re.compile(r"pip install verl==\d+(\.\d+)+")
TEXTS = {".md", ".py", ".sh", ".txt", ".yaml"}
OUTSIDE = re.compile(r"(?<![\w.])\.\./\S*")
LOCAL = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def problems(folder: Path) -> Iterator[str]:
    """What the collection would ask to have mended, a line each."""
    for name, check in (("README.md", _readme), (PIN, _pin)):
        file = folder / name
        found = check(folder, file.read_text(encoding="utf-8")) if file.is_file() else ("is not there",)
        yield from (f"{name}: {problem}" for problem in found)
    if not list(folder.glob("run*.sh")):
        yield "no run script: run_NAME.sh launches verl with overrides appended"
    for file in sorted(path for path in folder.rglob("*") if path.suffix in TEXTS and path.is_file()):
        if outside := OUTSIDE.search(file.read_text(encoding="utf-8")):
            yield f"{file.relative_to(folder)}: {outside[0]} leads out of the folder"


def _readme(folder: Path, text: str) -> Iterator[str]:
    if not text.startswith("# "):
        yield "begin with a title, `# ...`"
    if f"({PIN})" not in text or "Required `verl` version" not in text:
        yield f"a line 'Required `verl` version' links {PIN}"
    yield from (f"{link} is not in the folder" for link in LOCAL.findall(text) if not (folder / link).exists())


def _pin(folder: Path, text: str) -> Iterator[str]:
    said = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    wanted = {"UPSTREAM": UPSTREAM, "MODE": "pinned_release", "RECIPE_FOLDER": folder.resolve().name}
    for key, value in wanted.items():
        if said.get(key) != value:
            yield f"{key} is {said.get(key)}, not {value}"
    if not RELEASE.fullmatch(said.get("PIP_INSTALL", "")):
        yield "PIP_INSTALL is `pip install verl==RELEASE`"


def main() -> int:
    """Exit status 1 when something is to mend."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--owner", default="@owner", help="who answers for it: a GitHub name, or several")
    args = parser.parse_args()
    found = list(problems(args.folder))
    name = args.folder.resolve().name
    if found:
        print(*found, sep="\n", file=sys.stderr)
        return 1
    print(f"CODEOWNERS:  /{name} {args.owner}")
    print(f"README.md:   | {name} | [`recipe/{name}/{PIN}`]({name}/{PIN}) |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
