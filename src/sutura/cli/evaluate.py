"""`sutura evaluate`: what a repair changed, measured on the two files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sutura.certificate.check import check
from sutura.cli import options
from sutura.cli.console import Exit, bar, guarded, messages, plain, print_json
from sutura.dataset import read_dataset
from sutura.errors import MismatchError, NetworkError, OutputError, PropertyError
from sutura.gates.evaluate import Attacked, Decision, Inside, attacked, inside, labelled, outside, uniform
from sutura.gates.problem import Problem, problem
from sutura.gates.rows import rows_of
from sutura.gates.speed import Speed, speed
from sutura.gates.table import GateTable, gate_table, is_gated
from sutura.network.onnx_read import file_bytes
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.run import Session, open_session
from sutura.progress import Listener, Progress
from sutura.property.read import read_property
from sutura.report import decision_map, document
from sutura.verdict.replay import runner
from sutura.verdict.workers import cores
from sutura.writing import write_all

BATCHES = (1, 1024)

ALL_SAMPLES, MOST_SAMPLES, ALL_NUMBERS = 1_000_000, 100_000, 50_000_000
"""Samples over all properties, most of one, and most numbers in those of one, where the user names none."""

ALL_STARTS, MOST_STARTS, FEWEST_STARTS = 1000, 64, 8
"""Starts of the attack over all properties, and most and fewest of one."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """The two files and the properties, made ready."""

    asked: Problem
    fixed: bytes
    sessions: tuple[Session, Session]
    table: GateTable | None


@click.command("evaluate")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--data", type=click.Path(path_type=Path), help="A labelled data set (.npz with x and y).")
@click.option(
    "--certificate", type=click.Path(path_type=Path), help="Beside the repaired file by default (.cert.json)."
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    help="Samples a property [default: 100000, fewer for more than ten properties or 500 inputs].",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Write a decision map before and after (.png).")
@options.decision
@options.workers
@options.external_data
@options.seed
@options.as_json
@guarded
def command(
    files: tuple[Path, ...],
    data: Path | None,
    certificate: Path | None,
    samples: int | None,
    plot: Path | None,
    decision: Any,
    workers: int | None,
    external_data: bool,
    seed: int,
    as_json: bool,
) -> Exit:
    """Compare a network with its repair: sutura evaluate ORIG.onnx FIXED.onnx PROP.vnnlib...

    Violations before and after by sampling and by attack, the certificate's word, changes inside and outside
    of the boxes, accuracy on labelled data, gates, size and run time. Figures but the certificate's are
    estimates. The exit code is 1 where the repaired network was seen to violate a property.
    """
    (original, fixed), places = _sorted(files)
    if plot is not None and plot.suffix.lower() != ".png":
        raise OutputError(f"--plot {plot} must end in .png")
    properties = tuple(read_property(place) for place in places)
    asked = problem(load(original, external_data=external_data), properties)
    repaired = file_bytes(fixed)
    pair = Pair(asked, repaired, _sessions(asked, repaired, fixed), gate_table(repaired))
    how: dict[str, Any] = {"samples": samples or _shared(asked), "seed": seed, "decision": decision}
    with bar(quiet=as_json, noun="properties") as listen:
        changes = _changes(pair, how, listen)
    body = {
        "certificate": _word(pair, fixed, certificate, workers),
        **changes,
        "data": None if data is None else _on_data(pair, data, decision),
        "gates": None if pair.table is None else pair.table.kinds,
        "cells": 0 if pair.table is None else (len(pair.table.tree) + 1) // 2,
        "bytes": {"before": len(asked.original), "after": len(repaired)},
        "speed": [{**asdict(s), "ratio": s.ratio} for s in _speeds(pair, seed)],
    }
    report = document.document("evaluate", body)
    if plot is not None:
        write_all({plot: _picture(pair, decision)})
    if as_json:
        print_json(report)
    else:
        _show(report)
    return Exit.VIOLATED if _still_violated(report) else Exit.HOLDS


def _sorted(files: Sequence[Path]) -> tuple[tuple[Path, Path], tuple[Path, ...]]:
    properties = tuple(f for f in files if f.name.lower().endswith((".vnnlib", ".vnnlib.gz")))
    networks = [f for f in files if f not in properties]
    if len(networks) != 2:
        named = ", ".join(f.name for f in networks) or "none"
        raise NetworkError(
            f"give the original network and the repaired one, in this order; networks: {named}"
        )
    if not properties:
        raise PropertyError("no property is given; name at least one .vnnlib file")
    return (networks[0], networks[1]), properties


def _sessions(asked: Problem, repaired: bytes, place: Path) -> tuple[Session, Session]:
    """Raises NetworkError where the second file is neither a network nor one with gates of our template."""
    sessions = open_session(asked.original), open_session(repaired, gated=is_gated(repaired))
    if sessions[0].input_shape != sessions[1].input_shape:
        raise MismatchError(
            f"{place.name} takes inputs of shape {sessions[1].input_shape}, the original "
            f"{sessions[0].input_shape}; is it the repair of this network?"
        )
    return sessions


def _word(pair: Pair, fixed: Path, given: Path | None, workers: int | None) -> dict[str, Any]:
    """What the independent checker says of the certificate; null where there is none."""
    place = given or fixed.with_name(f"{fixed.stem}.cert.json")
    if given is None and not place.exists():
        return {"file": None, "accepted": None, "reason": f"there is no {place.name}"}
    texts = [prop.text for prop in pair.asked.properties]
    report = check(pair.fixed, texts, place.read_bytes(), workers=workers or cores())
    return {"file": place.name, "accepted": report.accepted, "reason": report.reason}


def _shared(asked: Problem) -> int:
    """Samples of each property where the user names no number."""
    most = min(ALL_SAMPLES // len(asked.properties), ALL_NUMBERS // asked.network.input_size)
    return max(1, min(MOST_SAMPLES, most))


def _changes(pair: Pair, how: dict[str, Any], listen: Listener) -> dict[str, Any]:
    networks = runner(pair.sessions[0]), runner(pair.sessions[1])
    properties = pair.asked.properties
    inner, ends = list[Inside](), list[Attacked]()
    starts = max(FEWEST_STARTS, min(MOST_STARTS, ALL_STARTS // len(properties)))
    for at, prop in enumerate(properties):
        listen(Progress("sampled and attacked", at, len(properties) - at, at / len(properties)))
        inner.append(inside(networks, prop, properties, **how))
        ends += attacked(pair.asked.program, networks, [prop], starts=starts, seed=how["seed"])
    outer = outside(networks, properties, **how)
    return {**document.figures(inner, outer), "attack": [asdict(end) for end in ends]}


def _on_data(pair: Pair, place: Path, decision: Decision) -> dict[str, Any]:
    data = read_dataset(place, labelled=True)
    flat = data.x.reshape(len(data), -1)
    if data.y is None or flat.shape[1] != pair.asked.network.input_size:
        raise MismatchError(
            f"{place.name} has samples of {flat.shape[1]} numbers, the network takes "
            f"{pair.asked.network.input_size}"
        )
    networks = runner(pair.sessions[0]), runner(pair.sessions[1])
    return asdict(labelled(networks, flat, data.y, decision))


def _speeds(pair: Pair, seed: int) -> list[Speed]:
    """On inputs of the first box; the original as sutura writes it, which takes batches of any size."""
    box = pair.asked.cases[0][1].box.float32_hull()
    plain = open_session(write_onnx(pair.asked.network))
    sizes = BATCHES[:1] if pair.sessions[1].single else BATCHES
    return [speed((plain, pair.sessions[1]), uniform(*box, size, seed)) for size in sizes]


def _picture(pair: Pair, decision: Decision) -> bytes:
    properties = pair.asked.properties
    seen = decision_map.view(properties, None, decision)
    networks = runner(pair.sessions[0]), runner(pair.sessions[1]), rows_of(pair.fixed)
    sampled = decision_map.sample(networks, properties, seen)
    title = f"{pair.asked.network.name}: {', '.join(p.name for p in properties)}"
    return decision_map.draw(sampled, properties, seen, title)


def _still_violated(report: dict[str, Any]) -> bool:
    seen = any(row["violating_after"] > 0 for row in report["inside"])
    return seen or any(row["violating_after"] for row in report["attack"])


def _show(report: dict[str, Any]) -> None:
    console, word = messages(), report["certificate"]
    said = {True: "[green]accepted[/]", False: "[red]refused[/]", None: "none"}[word["accepted"]]
    console.print(f"[bold]certificate[/]: {said}, {plain(word['reason'])}")
    table = Table("", *(plain(row["property"]) for row in report["inside"]), "outside", title="estimates")
    for name, key, text in LINES:
        last = report["outside"].get(key)
        cells = [text(row.get(key)) for row in (*report["inside"], report["outside"])]
        table.add_row(name, *cells[:-1], "-" if last is None else cells[-1])
    ends = [f"{row['violating_before']:,} / {row['violating_after']:,}" for row in report["attack"]]
    table.add_row("unsafe ends of an attack, before / after", *ends, "-")
    console.print(table)
    if report["data"]:
        found = report["data"]
        console.print(
            f"labelled data: accuracy {found['accuracy_before']:.4%} before, "
            f"{found['accuracy_after']:.4%} after; drawdown {found['drawdown']:.4%}; "
            f"{found['identical']:.4%} bit-identical"
        )
    kinds = ", ".join(f"{count} {kind}" for kind, count in (report["gates"] or {}).items()) or "none"
    size = report["bytes"]
    console.print(
        f"gates: {kinds}, in {report['cells']:,} cells; "
        f"{size['before']:,} bytes before, {size['after']:,} after"
    )
    for row in report["speed"]:
        console.print(f"batch {row['batch']}: {row['ratio']:.2f}x, {row['after'] * 1e6:,.0f} us of CPU time")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4%}"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


LINES = (
    ("violating before", "violating_before", _share),
    ("violating after", "violating_after", _share),
    ("right inputs with the same bits", "identical", _share),
    ("right inputs with the same decision", "agreeing", _share),
    ("mean change of a wrong score", "change_wrong", _small),
    ("the nearest safe change", "nearest_wrong", _small),
    ("mean change of a score", "change_all", _small),
    ("largest change of a score", "change_most", _small),
)
"""What is shown, its key in the report, and how it is written."""
