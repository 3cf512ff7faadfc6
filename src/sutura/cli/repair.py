"""`sutura repair`: a violated network in, a provably repaired network and its certificate out."""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sutura.cli import options
from sutura.cli.console import Exit, bar, guarded, messages, plain, print_json, sorted_out
from sutura.cli.resuming import Keeping, digest, journaled
from sutura.cli.verify import show
from sutura.errors import JournalError, OutputError
from sutura.gates.deliver import Repair
from sutura.gates.evaluate import Decision, inside, outside
from sutura.gates.mend import MOST_BOXES, ClampConfig, RepairConfig
from sutura.gates.minimal import MinimalConfig
from sutura.gates.nrepair import NRepairConfig
from sutura.gates.problem import problem
from sutura.gates.repair import Config, mended
from sutura.gates.rows import rows_of
from sutura.network.read import load
from sutura.network.run import open_session
from sutura.outward import share_at_least, share_at_most
from sutura.property.read import read_property
from sutura.property.spec import Property
from sutura.report import decision_map, document
from sutura.report.sarif import repaired, sarif
from sutura.verdict.outcome import Outcome, Violated
from sutura.verdict.replay import Runner, runner
from sutura.verdict.search import VerifyConfig, decide
from sutura.writing import write_all

MOST_SAMPLES, MOST_NUMBERS = 100_000, 4_000_000
"""Samples of the estimates, fewer where an input holds many numbers."""

LOOK_FIRST = 10.0
"""Seconds given to each property's verdict before the repair."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a repair starts from."""

    name: str
    inputs: int
    original: bytes
    names: tuple[str, ...]
    properties: tuple[Property, ...]
    before: tuple[Outcome, ...]
    out: Path


@click.command("repair")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="The repaired network (.onnx)."
)
@click.option(
    "--method",
    type=click.Choice(["default", "nrepair", "minimal", "clamp"]),
    default="default",
    show_default=True,
    help="default, or a published method, or the plain clamp of whole boxes; see the README.",
)
@click.option(
    "--gate", type=click.Choice(["output", "neuron"]), default="output", show_default=True, help="Gate kind."
)
@click.option(
    "--boxes",
    type=click.IntRange(min=0),
    help="Boxes to bound; 0: gate all. Default: 8,000, and 256 where an unsafe output is known.",
)
@options.journal
@options.external_data
@click.option("--no-journal", is_flag=True, help="Keep no journal; without this one lies beside OUT.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a decision map before and after (.png).")
@options.decision
@options.timeout
@options.workers
@options.seed
@options.sarif
@options.as_json
@guarded
def command(
    files: tuple[Path, ...],
    out: Path,
    method: str,
    gate: Any,
    boxes: int | None,
    journal: Path | None,
    no_journal: bool,
    external_data: bool,
    plot: Path | None,
    decision: Any,
    timeout: float | None,
    workers: int | None,
    seed: int,
    sarif_to: Path | None,
    as_json: bool,
) -> Exit:
    """Repair a network: sutura repair NET.onnx PROP.vnnlib... -o fixed.onnx

    Writes fixed.onnx, fixed.cert.json and fixed.report.json; nothing unless the independent checker accepts.
    --timeout limits the search for proofs; what is not proved by then is gated. The published methods may
    leave something unproved: then there is no certificate, the report says what, and the exit code is 3.

    While it runs fixed.journal keeps what is proved: after a crash or a kill the same command goes on from
    there and gives the same files, byte for byte (without --timeout). It goes away when the repair is done.
    """
    network, places = sorted_out(files)
    _check_out((out, plot), files)
    properties = tuple(read_property(place) for place in places)
    if plot is not None:
        decision_map.check_possible(properties)
    loaded = load(network, external_data=external_data)
    look = VerifyConfig(timeout=min(LOOK_FIRST, timeout or LOOK_FIRST), workers=workers, seed=seed)
    work = digest(loaded, properties, {"method": method, "gate": gate, "boxes": boxes})
    with (
        journaled(_keeping(out, journal, no_journal), work, quiet=as_json) as kept,
        bar(quiet=as_json) as listen,
    ):
        asked = problem(loaded, properties, kept.track("repair"))
        replay = runner(open_session(asked.original))
        before = tuple(decide(asked.program, replay, prop, look, listen=listen) for prop in properties)
        job = Job(
            loaded.network.name,
            loaded.network.input_size,
            asked.original,
            tuple(p.name for p in places),
            properties,
            before,
            out,
        )
        config = _config(method, gate, boxes, (timeout, workers))
        result = mended(asked, config, listen)
        kept.sync()
        files_out, report = _products(job, places, result, (plot, decision, seed))
        if sarif_to is not None:
            told = sarif(repaired(report, str(out), map(str, places)))
            files_out = {**files_out, sarif_to: (json.dumps(told, indent=2) + "\n").encode()}
        write_all(files_out)
        kept.finished = True
    if as_json:
        print_json(report)
    else:
        _show(job, report, files_out)
    return Exit.HOLDS if result.certified else Exit.UNKNOWN


def _config(method: str, gate: Any, boxes: int | None, limits: tuple[float | None, int | None]) -> Config:
    timeout, workers = limits
    match method:
        case "nrepair":
            return NRepairConfig(timeout=timeout, workers=workers)
        case "minimal":
            return MinimalConfig(
                boxes=MOST_BOXES if boxes is None else boxes, timeout=timeout, workers=workers
            )
        case "clamp":
            return ClampConfig(workers=workers)
        case _:
            return RepairConfig(gate=gate, boxes=boxes, timeout=timeout, workers=workers)


def _keeping(out: Path, journal: Path | None, none: bool) -> Keeping:
    """Where the journal lies; one that lies there because nothing was said gives way to other work."""
    if none and journal is not None:
        raise JournalError("--journal and --no-journal are opposites; leave one of them out")
    if journal is not None or none:
        return Keeping(journal)
    return Keeping(out.with_suffix(".journal"), afresh=True)


def _check_out(outs: tuple[Path, Path | None], inputs: Sequence[Path]) -> None:
    """Raise OutputError, before any work, where the results could not be written."""
    out, plot = outs
    if out.suffix.lower() != ".onnx":
        raise OutputError(f"-o {out} must end in .onnx: that is what is written")
    if plot is not None and plot.suffix.lower() != ".png":
        raise OutputError(f"--plot {plot} must end in .png")
    for place in (place for place in outs if place is not None):
        if not place.parent.is_dir():
            raise OutputError(f"there is no folder {place.parent} to write {place.name} into; make it first")
        if not os.access(place.parent, os.W_OK):
            raise OutputError(
                f"the folder {place.parent} cannot be written to; choose another for {place.name}"
            )
        if any(place.exists() and given.exists() and place.samefile(given) for given in inputs):
            raise OutputError(f"{place} is an input of this repair; give the result another name")


def _products(
    job: Job, places: Sequence[Path], result: Repair, how: tuple[Path | None, Decision, int]
) -> tuple[dict[Path, bytes], dict[str, Any]]:
    """All files of a repair, and the report, which is one of them."""
    plot, decision, seed = how
    was = runner(open_session(job.original))
    now = runner(open_session(result.onnx, gated=True))
    stem = job.out.with_suffix("")
    files = {job.out: result.onnx}
    if result.certified:
        files[stem.with_name(f"{stem.name}.cert.json")] = result.certificate
    for place, prop in zip(places, job.properties, strict=True):
        if not _same_text(place, prop):
            files[_free(stem.with_name(f"{stem.name}.{prop.name}.vnnlib"), files)] = prop.text
    if plot is not None:
        files[plot] = _picture(job, (was, now), result, decision)
    many = max(1000, min(MOST_SAMPLES, MOST_NUMBERS // job.inputs))
    inner = [
        inside((was, now), p, job.properties, samples=many, seed=seed, decision=decision)
        for p in job.properties
    ]
    outer = outside((was, now), job.properties, samples=many, seed=seed)
    before = [document.outcome(name, found) for name, found in zip(job.names, job.before, strict=True)]
    body = document.repair(result, before, {place.name: _kind(place) for place in files})
    report = document.document("repair", {**body, "estimates": document.figures(inner, outer)})
    place = stem.with_name(f"{stem.name}.report.json")
    return {**files, place: (json.dumps(report, indent=2) + "\n").encode()}, report


def _same_text(place: Path, prop: Property) -> bool:
    """Whether the checker can be given the file itself: VNN-LIB 1.0, or one gzip member of it."""
    data = place.read_bytes()
    if place.suffix != ".gz":
        return data == prop.text
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(data, len(prop.text) + 1)
    except zlib.error:
        return False
    return text == prop.text and inflater.eof and not inflater.unused_data


def _free(place: Path, taken: Container[Path]) -> Path:
    """The place, or one like it that no other file of this repair has."""
    named = (place.with_name(f"{place.stem}_{count}{place.suffix}") for count in itertools.count(2))
    return next(name for name in itertools.chain([place], named) if name not in taken)


def _kind(place: Path) -> str:
    endings = {
        ".cert.json": "certificate",
        ".report.json": "report",
        ".vnnlib": "property as VNN-LIB 1.0",
        ".png": "decision map",
        ".sarif": "SARIF",
    }
    return next((kind for ending, kind in endings.items() if place.name.endswith(ending)), "repaired network")


def _picture(job: Job, networks: tuple[Runner, Runner], result: Repair, decision: Decision) -> bytes:
    """Around the boxes of what was violated (of everything where nothing was), through the first witness."""
    violated = [
        (p, o.verdict)
        for p, o in zip(job.properties, job.before, strict=True)
        if isinstance(o.verdict, Violated)
    ]
    shown = [p for p, _ in violated] or list(job.properties)
    seen = decision_map.view(shown, violated[0][1].witness.input if violated else None, decision)
    sampled = decision_map.sample((*networks, rows_of(result.onnx)), shown, seen)
    return decision_map.draw(sampled, shown, seen, f"{job.name}: {', '.join(p.name for p in shown)}")


def _show(job: Job, report: dict[str, Any], files: dict[Path, bytes]) -> None:
    console = messages()
    console.print("[bold]before[/]")
    show(report["before"])
    regions, seconds = report["regions"], report["seconds"]
    console.print(f"[bold]after[/]: {AFTER[report['after']]}")
    console.print(
        f"{regions['proved']:,} regions proved as they are "
        f"({share_at_least(regions['proved_share'])} of the boxes), "
        f"{regions['output_gated']:,} with output gates, {regions['neuron_gated']:,} with neuron gates; "
        f"search {seconds['search']:.1f} s, check {seconds['check']:.1f} s"
    )
    if report["trials"]:
        console.print(_tried(report["trials"]))
    if report["note"]:
        console.print(f"[yellow]note:[/] {plain(report['note'])}")
    console.print(_estimates(report["estimates"]))
    for place in files:
        console.print(f"wrote {plain(str(place))} ({_kind(place)})")


def _tried(trials: dict[str, Any]) -> str:
    return (
        f"{trials['repaired']:,} of {trials['counterexamples']:,} boxes with a counterexample repaired "
        f"({trials['boxes']:,} boxes in the grid); a try made {trials['changes']:.1f} changes and took "
        f"{trials['seconds']:.2f} s, a repair holds {trials['gates']:.1f} neurons"
    )


def _estimates(found: dict[str, Any]) -> Table:
    table = Table(
        "property", "violating before", "after", "right inputs kept, bit for bit", "change of wrong ones",
        "nearest possible",
        title=f"estimates on {found['inside'][0]['samples']:,} samples a property; outside the boxes "
        f"{_percent(found['outside']['identical'], share_at_least)} bit-identical",
    )  # fmt: skip
    for row in found["inside"]:
        changes = [_small(row[key]) for key in ("change_wrong", "nearest_wrong")]
        shares = [_percent(row[key], share_at_most) for key in ("violating_before", "violating_after")]
        shares.append(_percent(row["identical"], share_at_least))
        table.add_row(plain(row["property"]), *shares, *changes)
    return table


def _percent(value: float | None, rounded: Callable[[float, int], str]) -> str:
    return "-" if value is None else rounded(value, 4)


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


AFTER = {
    "certified": "[green]certified[/], every property proved; the independent checker accepts the file",
    "unproved": "[yellow]not certified[/]; the method leaves regions unproved",
}
