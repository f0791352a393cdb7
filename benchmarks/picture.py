"""The picture of a report for the README: ``python -m benchmarks.picture out/demo/report.html docs/report.png``

Two views of the page side by side, as Chromium draws them: its first screen with the survival curves, and a dialogue of
the second run.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image

VIEW = {"width": 1120, "height": 1440}
GAP = 24
COLOURS = 256
"""Of the written picture: text and flat areas need no more."""


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--failing-from", type=int, default=3, help="turn at which the dialogue shown fails first")
    args = parser.parse_args()
    views = taken(args.report.resolve(), args.failing_from)
    whole = Image.new("RGB", (sum(view.width for view in views) + GAP, VIEW["height"]), "#dfe3e8")
    left = 0
    for view in views:
        whole.paste(view, (left, 0))
        left += view.width + GAP
    whole.quantize(COLOURS).save(args.picture, optimize=True)
    print(f"{args.picture}: {args.picture.stat().st_size / 1000:.0f} kB")


def taken(report: Path, turn: int) -> list[Image.Image]:
    """The two views."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or sys.exit("no chromium here; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        tab = browser.new_page(viewport=VIEW)
        tab.goto(report.as_uri())
        tab.wait_for_selector("html[data-ready]")
        results = _shot(tab)
        tab.evaluate("document.getElementById('dialogues').scrollIntoView()")
        tab.evaluate("document.getElementById('more').open = true")
        tab.select_option("[name=run]", index=1)
        tab.select_option("[name=first]", str(turn))
        tab.locator("[role=option]").first.click()
        tab.wait_for_selector("#detail h3")
        dialogue = _shot(tab)
        browser.close()
    return [results, dialogue]


def _shot(tab: Any) -> Image.Image:
    return Image.open(io.BytesIO(tab.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
