"""The report of ``steer tutor log``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from steer_verl.transport.ledger import Summary


def show(summary: Summary, console: Console) -> None:
    """Print what a log of attempts holds."""
    usage = summary.usage
    unscored = sum(summary.unscored.values())
    share = f" ({100 * unscored / summary.rulings:.1f} %)" if summary.rulings else ""
    rows = [
        ("rulings", f"{summary.rulings}, of which unscored {unscored}{share}{_listed(summary.unscored)}"),
        ("attempts", f"{usage.requests} for {summary.keys} distinct requests{_listed(summary.attempts)}"),
        ("turned away", f"{usage.rejected} by an open breaker"),
        ("servers", ", ".join(f"{server} {count}" for server, count in sorted(summary.servers.items())) or "none"),
        ("prompt tokens", f"{usage.prompt_tokens}, of which cached {usage.cached_tokens}"),
        ("completion tokens", str(usage.completion_tokens)),
        ("seconds in attempts", f"{summary.seconds:.1f}"),
        ("cost", f"{usage.cost:.4f}" if usage.cost else "no prices set"),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    console.print(table, markup=False)


def _listed(counts: dict[str, int]) -> str:
    words = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f": {words}" if words else ""
