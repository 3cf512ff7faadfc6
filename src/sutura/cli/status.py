"""`sutura status`: what a campaign has found so far, while it runs or after."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sutura.campaign.store import reading
from sutura.campaign.survey import as_csv, survey
from sutura.cli import options
from sutura.cli.console import Exit, guarded, messages, plain, print_json
from sutura.report.document import document
from sutura.report.sarif import sarif
from sutura.writing import write_all

EVERY = 1.0
"""Seconds between two looks of --watch."""

QUIET = 30.0
"""Seconds without a sign of life after which a campaign is called stopped; it gives one each second."""

MOST_ERRORS = 10

COLOURS = {
    "proved": "green",
    "holds-real": "cyan",
    "violated": "red",
    "unknown": "yellow",
    "error": "magenta",
}


@click.command("status")
@click.argument("results", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--watch", is_flag=True, help="Look again every second until all is done; Ctrl-C ends it.")
@click.option(
    "--csv", "csv_to", type=click.Path(path_type=Path, dir_okay=False), help="Write results as CSV."
)
@options.sarif
@options.as_json
@guarded
def command(results: Path, watch: bool, csv_to: Path | None, sarif_to: Path | None, as_json: bool) -> Exit:
    """Show a campaign's results: sutura status results.sqlite --watch

    Reads the file that sutura campaign writes, also while it writes it. Exit code 0 once it was read.
    """
    body = _watched(results) if watch and not as_json else _read(results)
    files: dict[Path, bytes] = {}
    if csv_to is not None:
        files[csv_to] = as_csv(body["results"])
    if sarif_to is not None:
        files[sarif_to] = (json.dumps(sarif(body["results"]), indent=2) + "\n").encode()
    write_all(files)
    if as_json:
        print_json(document("campaign", body))
    elif not watch:
        show(body)
    return Exit.HOLDS


def _read(place: Path) -> dict[str, Any]:
    with reading(place) as found:
        return survey(found)


def _watched(place: Path) -> dict[str, Any]:
    """The last state seen: all done, or when the watcher had enough."""
    body = _read(place)
    with Live(table(body), console=messages(), refresh_per_second=4) as live:
        try:
            while body["done"] < body["instances"]:
                time.sleep(EVERY)
                body = _read(place)
                live.update(table(body))
        except KeyboardInterrupt:
            return body
    return body


def show(body: dict[str, Any]) -> None:
    """The state of a campaign on the console that people read."""
    messages().print(table(body))


def table(body: dict[str, Any]) -> Group:
    """Counts, what runs, the slowest, and errors."""
    counts = Table("verdict", "instances")
    for word, count in sorted(body["verdicts"].items()):
        counts.add_row(f"[{COLOURS[word]}]{word}[/]", f"{count:,}")
    parts: list[Any] = [Text(_headline(body)), counts]
    if body["running"]:
        parts.append(_instances("running", body["running"], "worker"))
    if body["slowest"]:
        parts.append(_instances("slowest", body["slowest"], "verdict"))
    errors = [result for result in body["results"] if result["verdict"] == "error"]
    parts += [
        Text.from_markup(
            f"[magenta]{r['kind']}[/] {plain(r['network'])}, {plain(r['property'])}: {plain(r['reason'])}"
        )
        for r in errors[:MOST_ERRORS]
    ]
    if len(errors) > MOST_ERRORS:
        parts.append(Text(f"and {len(errors) - MOST_ERRORS:,} more errors; --json and --csv have all"))
    return Group(*parts)


def _headline(body: dict[str, Any]) -> str:
    lost = body["runs"].get("lost", 0)
    quiet = body["seen_seconds_ago"]
    left = body["instances"] - body["done"]
    said = [f"{body['done']:,} of {body['instances']:,} instances done, {body['cpu_seconds']:.1f} CPU s"]
    said += [f"{lost:,} runs lost with their worker"] * bool(lost)
    if left and quiet is not None and quiet > QUIET:
        said.append(f"nobody works on it since {quiet:,.0f} s: the same sutura campaign command goes on")
    return "; ".join(said)


def _instances(title: str, rows: list[dict[str, Any]], last: str) -> Table:
    shown = Table("network", "property", "seconds", last, title=title)
    for row in rows:
        names = (plain(Path(row[name]).name) for name in ("network", "property"))
        shown.add_row(*names, f"{row['seconds']:.2f}", plain(row[last]))
    return shown
