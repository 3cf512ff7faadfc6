"""`sutura shift`: a network in, one whose weights are signed powers of two out, with what it cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sutura.cli import options
from sutura.cli.console import Exit, guarded, messages, plain, print_json
from sutura.compression.calibration import check_fits
from sutura.compression.latency import in_runtime, medians
from sutura.dataset import Dataset, read_dataset
from sutura.errors import OutputError
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.network.predictions import accuracy, outputs
from sutura.network.read import load
from sutura.report.document import document
from sutura.report.shift import Figures, account
from sutura.shift.convert import ShiftConfig, Shifted, to_shift
from sutura.writing import write_all

BATCHES = (1, 8, 64)

ROUNDS = 20
"""Interleaved runs, of which the median is told."""


@click.command("shift")
@click.argument("network", type=click.Path(path_type=Path))
@click.option(
    "--method",
    default="ours",
    show_default=True,
    help="q or ps: DeepShift from pretrained, as published; ours: a scale for each output channel.",
)
@click.option("--bits", type=int, default=5, show_default=True, help="Bits of a weight, 2 to 5.")
@click.option(
    "--scale",
    type=click.Choice(["free", "power"]),
    default="free",
    show_default=True,
    help="Scales of ours: any numbers, or powers of two (no multiplication).",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Calibration samples (.npz with x) for ours; labels not needed.",
)
@click.option(
    "--test", type=click.Path(path_type=Path), help="Samples with labels (.npz) to tell accuracy by."
)
@click.option("--keep", multiple=True, metavar="LAYER", help="A layer to leave alone; may be repeated.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="The shifted network (.onnx)."
)
@click.option(
    "--packed",
    type=click.Path(path_type=Path),
    help="Its weights at --bits bits each (.safetensors; needs sutura[shift]).",
)
@options.seed
@options.as_json
@guarded
def command(
    network: Path,
    method: str,
    bits: int,
    scale: Any,
    data: Path | None,
    test: Path | None,
    keep: tuple[str, ...],
    out: Path,
    packed: Path | None,
    seed: int,
    as_json: bool,
) -> Exit:
    """Make weights signed powers of two: sutura shift NET.onnx --bits 4 --data calib.npz -o shifted.onnx

    The result is an ordinary float32 ONNX network for verify and repair; no kernel runs packed weights yet.
    A report (shifted.report.json) says what became of every layer.
    """
    _check_out(out, packed, network)
    config = ShiftConfig(method=method, bits=bits, scale=scale, keep=keep, seed=seed)
    source = load(network).network
    samples = None if data is None else read_dataset(data)
    labelled = None if test is None else read_dataset(test, labelled=True)
    for given in (samples, labelled):
        if given is not None:
            check_fits(source, given)
    made = to_shift(source, config, data=samples)
    weights = None if packed is None else made.packed()
    figures = measured(source, made, labelled, weights)
    report = document("shift", account(network.name, made, figures))
    files = {out: made.onnx}
    if packed is not None and weights is not None:
        files[packed] = weights
    stem = out.with_suffix("")
    files[stem.with_name(f"{stem.name}.report.json")] = (json.dumps(report, indent=2) + "\n").encode()
    write_all(files)
    if as_json:
        print_json(report)
    else:
        _show(network.name, report, list(files))
    return Exit.HOLDS


def _check_out(out: Path, packed: Path | None, network: Path) -> None:
    """Raise OutputError, before any work, where results could not be written."""
    for flag, place, suffix in (("-o", out, ".onnx"), ("--packed", packed, ".safetensors")):
        if place is None:
            continue
        if place.suffix.lower() != suffix:
            raise OutputError(f"{flag} {place} must end in {suffix}: that is what is written")
        if not place.parent.is_dir():
            raise OutputError(f"there is no folder {place.parent} to write {place.name} into; make it first")
    if out.exists() and network.exists() and out.samefile(network):
        raise OutputError(f"{out} is the network that is shifted; give the result another name")


def measured(before: Network, made: Shifted, test: Dataset | None, packed: bytes | None) -> Figures:
    """Sizes, accuracy with labels, and times in ONNX Runtime, one thread, both networks in turn."""
    first = write_onnx(before)
    both = None
    if test is not None and test.y is not None:
        shares = [accuracy(outputs(onnx, test.x), test.y) for onnx in (first, made.onnx)]
        both = shares[0], shares[1]
    seconds = dict[int, tuple[float, float]]()
    for batch in BATCHES:
        old, new = medians([in_runtime(net, batch) for net in (before, made.network)], ROUNDS)
        seconds[batch] = old, new
    return Figures((len(first), len(made.onnx)), None if packed is None else len(packed), both, seconds)


def _show(name: str, report: dict[str, Any], files: Sequence[Path]) -> None:
    console = messages()
    table = Table("", "before", "after", title=plain(name))
    for row in rows(report):
        table.add_row(*row)
    console.print(table)
    for part in report["left_alone"]:
        console.print(f"left alone: {plain(part['name'])} {plain(part['reason'])}")
    for place in files:
        console.print(f"wrote {plain(str(place))}")


def rows(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The lines of the table."""
    bits, size = report["bits_per_weight"], report["bytes"]
    whole = report["weights"] * 4
    lines: list[tuple[str, str, str]] = [
        ("layers shifted", "-", f"{len(report['layers'])} ({report['weights']:,} weights)"),
        ("bits a weight, scales included", f"{bits['before']:.2f}", f"{bits['after']:.2f}"),
        ("bytes as ONNX (float32)", f"{size['onnx_before']:,}", f"{size['onnx_after']:,}"),
    ]
    if size["packed"] is not None:
        share = f"{size['packed']:,} ({size['packed'] / whole:.1%})"
        lines.append(("bytes of shifted weights, packed", f"{whole:,}", share))
    if (both := report["accuracy"]) is not None:
        lines.append(("accuracy", f"{both['before']:.2%}", f"{both['after']:.2%}"))
    for batch, both in report["runtime_seconds"].items():
        title = f"ONNX Runtime, ms, batch {batch}"
        lines.append((title, f"{1e3 * both['before']:.3f}", f"{1e3 * both['after']:.3f}"))
    return lines
