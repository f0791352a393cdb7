"""The README's picture of a report: ``python -m benchmarks.report REPORT docs/report.png``, in a real Chromium.

Two views side by side: its first screen with the survival curves, and a dialogue of the second run.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1120, 1440
GAP = 24
"""Pixels between the views."""


def picture(report: Path, png: Path, turn: int) -> None:
    """Both views of the report; the dialogue shown fails first at ``turn``."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or sys.exit("no chromium here; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(report.resolve().as_uri())
        tab.wait_for_selector("html[data-ready]")
        shots = [tab.screenshot()]
        tab.evaluate("document.getElementById('dialogues').scrollIntoView()")
        tab.evaluate("document.getElementById('more').open = true")
        tab.select_option("[name=run]", index=1)
        tab.select_option("[name=first]", str(turn))
        tab.locator("[role=option]").first.click()
        tab.wait_for_selector("#detail h3")
        shots.append(tab.screenshot())
        browser.close()
    whole = Image.new("RGB", (len(shots) * (WIDTH + GAP) - GAP, HEIGHT), "#dfe3e8")
    for place, shot in enumerate(shots):
        whole.paste(Image.open(io.BytesIO(shot)).convert("RGB"), (place * (WIDTH + GAP), 0))
    whole.quantize(256).save(png, optimize=True)  # text and flat areas need no more colours
    print(f"{png}: {png.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("png", type=Path)
    parser.add_argument("--failing-from", type=int, default=3, help="turn at which the dialogue shown fails first")
    given = parser.parse_args()
    picture(given.report, given.png, given.failing_from)
