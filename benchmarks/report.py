"""How long does a report take, to write and to use? ``python -m benchmarks.report``.

Synthetic runs of 3,227 dialogues x 10 turns with an image of 338..512 pixels each (tests/report/samples.py).

* **Writing.** From ``dialogues.jsonl`` to the page, figures and tests included, in a process of its own: wall time, CPU
  time and peak memory, for one run and for two.
* **Using.** The page of two runs in a real Chromium: the time from a key or a click until the next frame with the
  answer is drawn, and the longest time that the page's thread was busy at a stretch.

Writes benchmarks/report.md. ``--picture REPORT PNG`` instead takes the README's picture of a report, docs/report.png:
two views side by side, its first screen with the survival curves and a dialogue of the second run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import pages
from tests.report import samples

TURNS, WORDS = 10, 60
REPEATS = 9
VIEW = {"width": 1120, "height": 1440}
GAP = 24
"""Pixels of the README's picture."""
CHILD = """
import json, resource, sys, time
started = time.monotonic()
from pathlib import Path
from steer_verl.report.write import write_report
write_report([Path(run) for run in sys.argv[2:]], Path(sys.argv[1]))
used = resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime
print(json.dumps({"wall": time.monotonic() - started, "cpu": cpu, "mib": used.ru_maxrss / 1024}))
"""
DRAWN = "await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));"
UNTIL = "while (!({test})) await new Promise((next) => setTimeout(next, 1));"
"""A timer and not a frame: frames come 60 times a second and would round every answer up."""

USES: dict[str, tuple[str, str]] = {
    "filter: failures of one benchmark": (
        "const f = document.forms.filters; f.benchmark.value = ['dys', 'spa', 'vls'][i % 3];"
        "f.outcome.value = 'failed'; f.benchmark.dispatchEvent(new Event('input', {bubbles: true}))",
        "true",
    ),
    "open a dialogue": (
        "const list = document.getElementById('list'); list.focus(); was = document.getElementById('detail-title');"
        "list.dispatchEvent(new KeyboardEvent('keydown', {key: ['PageDown', 'End', 'PageUp'][i % 3], bubbles: true}))",
        "document.getElementById('detail-title') !== was",
    ),
    "open it beside the other run": (
        "const f = document.forms.filters; was = document.getElementById('detail-title');"
        "f.other.value = i % 2 ? '' : '1'; f.other.dispatchEvent(new Event('input', {bubbles: true}))",
        "document.getElementById('detail-title') !== was",
    ),
    "search a run again": (
        "const f = document.forms.filters; f.words.value = ['green hidden', 'no such word', 'lamp'][i % 3];"
        "f.words.dispatchEvent(new Event('input', {bubbles: true})); was = null",
        "document.getElementById('list').ariaBusy === 'false'",
    ),
}
"""What is done -> the script that does it (i counts repeats), and what is true once it is answered."""


def main() -> None:
    """Measure and write the page, or take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", nargs=2, type=Path, metavar=("REPORT", "PNG"))
    parser.add_argument("--failing-from", type=int, default=3, help="turn at which the dialogue shown fails first")
    parser.add_argument("--dialogues", type=int, default=3227, help="of a run")
    args = parser.parse_args()
    if args.picture:
        picture(*args.picture, args.failing_from)
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        root = Path(folder)
        runs = make(root, args.dialogues)
        writes = [written(root / "one.html", runs[:1]), written(root / "two.html", runs)]
        raw = (runs[0] / "dialogues.jsonl").stat().st_size / 1e6
        used = in_browser(root / "two.html")
    rows = {
        "wall time (s)": [f"{one['wall']:.1f}" for one in writes],
        "CPU time (s)": [f"{one['cpu']:.1f}" for one in writes],
        "peak memory (MiB)": [f"{one['mib']:,.0f}" for one in writes],
        "size of the page (MB)": [f"{one['mb']:.1f}" for one in writes],
    }
    pages.write(
        Path(__file__).with_suffix(".md"),
        "# The report",
        pages.written("python -m benchmarks.report"),
        "## Writing",
        WRITING.format(dialogues=args.dialogues, turns=TURNS, raw=raw, load=os.getloadavg()[0]),
        pages.table(["", "one run", "two runs"], ([name, *cells] for name, cells in rows.items())),
        "## Using",
        f"The page of two runs in Chromium, opened from disk; medians of {REPEATS} (load: of 3; first search: 1), from "
        "the event to the frame with the answer.",
        pages.table(["", "ms"], ([name, f"{ms:.0f}"] for name, ms in used.items())),
    )


WRITING = """\
{dialogues:,} dialogues x {turns} turns a run ({raw:.0f} MB of `dialogues.jsonl`), each with an image of its own of 338
to 512 pixels, from records to page: reading, figures, intervals, tests between the runs, thumbnails, compression. Each
in a process of its own. Nothing here waits but for a core: on a machine that does nothing else, wall time is at most
the CPU time; the load average at the end, {load:.1f}, says how far this one was from that."""


def make(root: Path, dialogues: int) -> list[Path]:
    """Two runs of the same dialogues."""
    paths = samples.images(root / "images", dialogues, random.Random(0), (338, 512))
    return [
        samples.run(root / name, name, dialogues, skill=skill, turns=TURNS, paths=paths, words=WORDS)
        for name, skill in (("base", 0.7), ("ours", 0.95))
    ]


def written(out: Path, runs: list[Path]) -> dict[str, float]:
    """What it took to write the page, and its size in MB."""
    command = [sys.executable, "-c", CHILD, str(out), *map(str, runs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {**json.loads(done.stdout), "mb": out.stat().st_size / 1e6}


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's own, without a window."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or sys.exit("no chromium here; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


def in_browser(path: Path) -> dict[str, float]:
    """Milliseconds of each use, and of the longest task."""
    with chromium() as browser:
        found = {"load until it can be used": statistics.median(_loaded(browser, path)[1] for _ in range(3))}
        tab, _ = _loaded(browser, path)
        tab.evaluate("document.getElementById('dialogues').scrollIntoView()")
        found["first search of a run"] = _timed(tab, *USES["search a run again"], repeats=1)
        tab.evaluate("document.getElementById('clear').click()")
        for name, use in USES.items():
            found[name] = _timed(tab, *use, repeats=REPEATS)
        found["longest task of all"] = tab.evaluate("Math.max(0, ...window.tasks)")
    return found


def _loaded(browser: Any, path: Path) -> tuple[Any, float]:
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.add_init_script(
        "window.tasks = []; new PerformanceObserver((seen) => seen.getEntries().forEach((e) => tasks.push(e.duration)))"
        ".observe({type: 'longtask', buffered: true});"
        "new MutationObserver(() => {"
        " if (document.documentElement?.dataset.ready) window.ready ??= performance.now(); })"
        ".observe(document, {attributes: true, subtree: true});"
    )
    tab.goto(path.as_uri(), wait_until="commit")
    tab.wait_for_selector("html[data-ready]", timeout=60_000)
    return tab, float(tab.evaluate("window.ready"))


def _timed(tab: Any, act: str, test: str, repeats: int) -> float:
    script = f"""async (repeats) => {{
        const times = [];
        let was;
        for (let i = 0; i < repeats; i++) {{
            const from = performance.now();
            {{ {act}; }}
            {UNTIL.replace("{test}", test)}
            {DRAWN}
            times.push(performance.now() - from);
        }}
        return times;
    }}"""
    return statistics.median(tab.evaluate(script, repeats))


def picture(report: Path, png: Path, turn: int) -> None:
    """Two views of the report side by side; the dialogue shown fails first at ``turn``."""
    with chromium() as browser:
        tab = browser.new_page(viewport=VIEW)
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
    whole = Image.new("RGB", (len(shots) * (VIEW["width"] + GAP) - GAP, VIEW["height"]), "#dfe3e8")
    for place, shot in enumerate(shots):
        whole.paste(Image.open(io.BytesIO(shot)).convert("RGB"), (place * (VIEW["width"] + GAP), 0))
    whole.quantize(256).save(png, optimize=True)  # text and flat areas need no more colours
    print(f"{png}: {png.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
