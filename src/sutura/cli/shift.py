"""`sutura shift`: a network in, one whose weights are signed powers of two out, with what it cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from threadpoolctl import threadpool_limits

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
from sutura.report.shift import Figures, Speed, account
from sutura.shift.convert import ShiftConfig, Shifted, to_shift
from sutura.shift.kernel import kernels
from sutura.shift.linear_layers import linear_layers
from sutura.shift.qdq import quantised
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
@click.option(
    "--format",
    "form",
    type=click.Choice(["float", "qdq"]),
    default="float",
    show_default=True,
    help="Weights in the ONNX file: float32, or the same numbers as int8 (of 5 bits: two of them).",
)
@click.option("--keep", multiple=True, metavar="LAYER", help="A layer to leave alone; may be repeated.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="The shifted network (.onnx)."
)
@click.option(
    "--packed",
    type=click.Path(path_type=Path),
    help="Its weights at --bits bits each (.safetensors; needs sutura[shift]); also times the kernels.",
)
@options.external_data
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
    form: str,
    keep: tuple[str, ...],
    out: Path,
    packed: Path | None,
    external_data: bool,
    seed: int,
    as_json: bool,
) -> Exit:
    """Make weights signed powers of two: sutura shift NET.onnx --bits 4 --data calib.npz -o shifted.onnx

    The result is an ordinary ONNX network for verify, repair and diff. With --packed the kernels that read
    packed weights are timed beside float32. A report (shifted.report.json) says what became of every layer.
    """
    _check_out(out, packed, network)
    config = ShiftConfig(method=method, bits=bits, scale=scale, keep=keep, seed=seed)
    source = load(network, external_data=external_data).network
    samples = None if data is None else read_dataset(data, sample=source.input_shape)
    labelled = None if test is None else read_dataset(test, labelled=True, sample=source.input_shape)
    for given in (samples, labelled):
        if given is not None:
            check_fits(source, given)
    made = to_shift(source, config, data=samples)
    weights = None if packed is None else made.packed()
    held = None if form == "float" else quantised(made)
    written = made.onnx if held is None else held.onnx
    figures = measured(source, made, labelled, (written, weights))
    report = document("shift", account(network.name, made, figures, held))
    files = {out: written}
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


def measured(
    before: Network, made: Shifted, test: Dataset | None, written: tuple[bytes, bytes | None]
) -> Figures:
    """Sizes, accuracy with labels, and times, one thread, before and after in turn; `written` are the bytes
    of the ONNX file and of the packed one."""
    first, (onnx, packed) = write_onnx(before), written
    both = None
    if test is not None and test.y is not None:
        shares = [accuracy(outputs(file, test.x), test.y) for file in (first, onnx)]
        both = shares[0], shares[1]
    seconds = dict[int, tuple[float, float]]()
    for batch in BATCHES:
        old, new = medians([in_runtime(net, batch) for net in (before, made.network)], ROUNDS)
        seconds[batch] = old, new
    speed = None if packed is None else kernel_speed(made)
    return Figures(
        onnx, (len(first), len(onnx)), None if packed is None else len(packed), both, seconds, speed
    )


def kernel_speed(made: Shifted) -> Speed:
    """The linear layers alone, float32 in NumPy and packed in the kernels."""
    using, seconds = kernels(), dict[int, tuple[float, float, float]]()
    with threadpool_limits(1):
        for batch in BATCHES:
            runs = linear_layers(made, batch, using, ("float32", "int8"))
            if runs:
                plain_, near, whole = medians(runs, ROUNDS)
                seconds[batch] = plain_, near, whole
    return Speed(using.title, seconds)


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
        (f"bytes as ONNX ({report['format']})", f"{size['onnx_before']:,}", f"{size['onnx_after']:,}"),
    ]
    if size["packed"] is not None:
        share = f"{size['packed']:,} ({size['packed'] / whole:.1%})"
        lines.append(("bytes of shifted weights, packed", f"{whole:,}", share))
    if (both := report["accuracy"]) is not None:
        lines.append(("accuracy", f"{both['before']:.2%}", f"{both['after']:.2%}"))
    for batch, both in report["runtime_seconds"].items():
        title = f"ONNX Runtime, float32, ms, batch {batch}"
        lines.append((title, f"{1e3 * both['before']:.3f}", f"{1e3 * both['after']:.3f}"))
    if (speed := report["kernels"]) is not None:
        for batch, times in speed["linear_layers_seconds"].items():
            packed = f"{1e3 * times['packed']:.3f}, int8 activations {1e3 * times['packed_int8']:.3f}"
            lines.append(
                (f"linear layers packed, ms, batch {batch}", f"{1e3 * times['float32']:.3f}", packed)
            )
        lines.append(("kernels", "NumPy", speed["title"]))
    return lines
