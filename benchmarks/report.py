"""How long does a report take, to write and to use? ``python -m benchmarks.report``.

Synthetic runs of 3,227 dialogues x 10 turns with an image of 338..512 pixels each (tests/report/samples.py).

* **Writing.** From ``dialogues.jsonl`` to the page, figures and tests included, in a process of its own: wall time, CPU
  time and peak memory, for one run and for two.
* **Using.** The page of two runs in a real Chromium: the time from a key or a click until the next frame with the
  answer is drawn, and the longest time that the page's thread was busy at a stretch.

Writes benchmarks/report.md.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from tests.report import samples

DIALOGUES, TURNS, WORDS = 3227, 10, 60
REPEATS = 9
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
    """Measure and write the page."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        root = Path(folder)
        runs = make(root)
        one = written(root / "one.html", runs[:1])
        two = written(root / "two.html", runs)
        raw = (runs[0] / "dialogues.jsonl").stat().st_size / 1e6
        used = in_browser(root / "two.html")
    (Path(__file__).parent / "report.md").write_text(page(one, two, raw, used), encoding="utf-8")


def make(root: Path) -> list[Path]:
    """Two runs of the same dialogues."""
    paths = samples.images(root / "images", DIALOGUES, random.Random(0), (338, 512))
    return [
        samples.run(root / name, name, DIALOGUES, skill=skill, turns=TURNS, paths=paths, words=WORDS)
        for name, skill in (("base", 0.7), ("ours", 0.95))
    ]


def written(out: Path, runs: list[Path]) -> dict[str, float]:
    """What it took to write the page, and its size in MB."""
    command = [sys.executable, "-c", CHILD, str(out), *map(str, runs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {**json.loads(done.stdout), "mb": out.stat().st_size / 1e6}


def in_browser(path: Path) -> dict[str, float]:
    """Milliseconds of each use, and of the longest task."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or sys.exit("no chromium here; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        found = {"load until it can be used": statistics.median(_loaded(browser, path)[1] for _ in range(3))}
        tab, _ = _loaded(browser, path)
        tab.evaluate("document.getElementById('dialogues').scrollIntoView()")
        found["first search of a run (3,227 dialogues)"] = _timed(tab, *USES["search a run again"], repeats=1)
        tab.evaluate("document.getElementById('clear').click()")
        for name, use in USES.items():
            found[name] = _timed(tab, *use, repeats=REPEATS)
        found["longest task of all"] = tab.evaluate("Math.max(0, ...window.tasks)")
        browser.close()
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


def page(one: dict[str, float], two: dict[str, float], raw: float, used: dict[str, float]) -> str:
    """The Markdown."""
    rows: dict[str, Callable[[dict[str, float]], str]] = {
        "wall time (s)": lambda w: f"{w['wall']:.1f}",
        "CPU time (s)": lambda w: f"{w['cpu']:.1f}",
        "peak memory (MiB)": lambda w: f"{w['mib']:,.0f}",
        "size of the page (MB)": lambda w: f"{w['mb']:.1f}",
    }
    load = os.getloadavg()[0]
    return f"""# The report

Written by `python -m benchmarks.report` on {date.today()} ({os.cpu_count()} cores, Python {platform.python_version()},
load average {load:.1f} at the end); no figure is written by hand.

## Writing

{DIALOGUES:,} dialogues x {TURNS} turns a run ({raw:.0f} MB of `dialogues.jsonl`), each with an image of its own of 338
to 512 pixels, from records to page: reading, figures, intervals, tests between the runs, thumbnails, compression. Each
in a process of its own. Nothing here waits but for a core: on a machine that does nothing else, wall time is at most
the CPU time; the load above says how far this one was from that.

| | one run | two runs |
| --- | ---: | ---: |
{chr(10).join(f"| {name} | {told(one)} | {told(two)} |" for name, told in rows.items())}

## Using

The page of two runs in Chromium, opened from disk; medians of {REPEATS} (load: of 3; first search: 1), from the event
to the frame with the answer.

| | ms |
| --- | ---: |
{chr(10).join(f"| {name} | {ms:.0f} |" for name, ms in used.items())}
"""


if __name__ == "__main__":
    main()
