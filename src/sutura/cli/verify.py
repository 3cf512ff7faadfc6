"""`sutura verify`: does the network have its properties?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sutura.cli import options
from sutura.cli.console import Exit, bar, guarded, messages, plain, print_json, sorted_out
from sutura.network.read import load
from sutura.property.read import read_property
from sutura.report.document import document, outcome
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify

CODES = {"proved": Exit.HOLDS, "violated": Exit.VIOLATED, "unknown": Exit.UNKNOWN}


@click.command("verify")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@options.timeout
@options.workers
@options.seed
@options.as_json
@guarded
def command(
    files: tuple[Path, ...], timeout: float | None, workers: int | None, seed: int, as_json: bool
) -> Exit:
    """Decide whether a network has each of its properties: sutura verify NET.onnx PROP.vnnlib...

    Exit code 0 where all are proved, 1 where one is violated, 3 otherwise. --timeout is for each property.
    """
    network, places = sorted_out(files)
    properties = [read_property(place) for place in places]
    loaded = load(network)
    config = VerifyConfig(timeout=timeout, workers=workers, seed=seed)
    results: list[dict[str, Any]] = []
    for place, prop in zip(places, properties, strict=True):
        with bar(quiet=as_json) as listen:
            results.append(outcome(place.name, verify(loaded, prop, config, listen=listen)))
    if as_json:
        print_json(document("verify", {"network": network.name, "properties": results}))
    else:
        show(results)
    said = {str(r["verdict"]) for r in results}
    return next(CODES[word] for word in ("violated", "unknown", "proved") if word in said)


def show(results: list[dict[str, Any]]) -> None:
    """Verdicts as a table, witnesses below."""
    colours = {"proved": "green", "violated": "red", "unknown": "yellow"}
    table = Table("property", "verdict", "boxes", "share proved", "seconds")
    for r in results:
        word = str(r["verdict"])
        share = f"{r['proved_share']:.2%}"
        table.add_row(
            plain(r["property"]),
            f"[{colours[word]}]{word}[/]",
            f"{r['boxes']:,}",
            share,
            f"{r['seconds']:.2f}",
        )
    console = messages()
    console.print(table)
    for r in results:
        if "witness" in r:
            console.print(f"{plain(r['property'])}: input  {_numbers(r['witness']['input'])}")
            console.print(
                f"{' ' * len(r['property'])}  output {_numbers(r['witness']['output'])} (ONNX Runtime)"
            )
        if "reason" in r:
            console.print(f"{plain(r['property'])}: {plain(r['reason'])}")


def _numbers(values: list[float]) -> str:
    shown = ", ".join(f"{v:.9g}" for v in values[:16])
    return shown if len(values) <= 16 else f"{shown}, ... ({len(values)} numbers; --json has all)"
