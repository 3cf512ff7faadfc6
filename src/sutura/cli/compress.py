"""`sutura compress`: a network in, a smaller one out, with what it cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sutura.cli import options
from sutura.cli.console import Exit, guarded, messages, plain, print_json
from sutura.compression.compress import Compressed, curve
from sutura.compression.layers import Left
from sutura.compression.measure import Measured, measure
from sutura.compression.study import CompressConfig
from sutura.compression.weights import safetensors_of
from sutura.dataset import read_dataset
from sutura.errors import CompressionError, OutputError
from sutura.network.read import load
from sutura.outward import at_most
from sutura.property.read import read_property
from sutura.report.compression import account, picture
from sutura.report.document import document
from sutura.verdict.difference import Difference, diff
from sutura.writing import write_all

Row = tuple[str, ...]


@click.command("compress")
@click.argument("network", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    default="0.5",
    show_default=True,
    help="Share to keep, 0 to 1; several, as 0.8,0.5,0.3, make one file each.",
)
@click.option(
    "--budget",
    type=click.Choice(["params", "macs", "bytes", "latency"]),
    default="params",
    show_default=True,
    help="What is kept that share of; latency is measured.",
)
@click.option("--method", default="portfolio", show_default=True, help="portfolio, or one method by name.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Calibration samples (.npz with x); labels not needed."
)
@click.option(
    "--test", type=click.Path(path_type=Path), help="Samples with labels (.npz) to tell accuracy by."
)
@click.option("--keep", multiple=True, metavar="LAYER", help="A layer to leave alone; may be repeated.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="The smaller network (.onnx)."
)
@click.option("--safetensors", is_flag=True, help="Its weights as .safetensors beside it, too (needs torch).")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Accuracy against size over all targets (.png)."
)
@click.option(
    "--region",
    type=click.Path(path_type=Path),
    metavar="PROP",
    help="A property: certify how far outputs can move on its input boxes.",
)
@options.external_data
@options.seed
@options.as_json
@guarded
def command(
    network: Path,
    targets: str,
    budget: Any,
    method: str,
    data: Path | None,
    test: Path | None,
    keep: tuple[str, ...],
    out: Path,
    safetensors: bool,
    plot: Path | None,
    region: Path | None,
    external_data: bool,
    seed: int,
    as_json: bool,
) -> Exit:
    """Make a network smaller: sutura compress NET.onnx --target 0.4 --data calib.npz -o small.onnx

    The result is an ordinary ONNX network for verify and repair. With several targets the share is part of
    each file's name (small.0.4.onnx). A report (small.report.json) says what became of every layer.
    """
    shares = _shares(targets)
    _check_out(out, plot, network)
    config = CompressConfig(budget=budget, method=method, keep=keep, seed=seed)
    prop = None if region is None else read_property(region)
    source = load(network, external_data=external_data)
    shape = source.network.input_shape
    samples = None if data is None else read_dataset(data, sample=shape)
    labelled = None if test is None else read_dataset(test, labelled=True, sample=shape)
    found = curve(source, shares, config, data=samples)
    figures = measure(source.network, found, labelled)
    moved = () if prop is None else tuple(diff(source, load(made.onnx), prop) for made in found)
    files = _files(out, found, safetensors)
    report = document("compress", account(network.name, config, found, figures, moved))
    stem = out.with_suffix("")
    files[stem.with_name(f"{stem.name}.report.json")] = (json.dumps(report, indent=2) + "\n").encode()
    if plot is not None:
        files[plot] = picture(network.name, found, figures)
    write_all(files)
    if as_json:
        print_json(report)
    else:
        _show(network.name, rows(found, figures, moved), found[0].left, list(files))
    return Exit.HOLDS


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise CompressionError(f"--target {text!r} is no list of shares; write 0.5, or 0.8,0.5,0.3") from None


def _check_out(out: Path, plot: Path | None, network: Path) -> None:
    """Raise OutputError, before any work, where results could not be written."""
    if out.suffix.lower() != ".onnx":
        raise OutputError(f"-o {out} must end in .onnx: that is what is written")
    if plot is not None and plot.suffix.lower() != ".png":
        raise OutputError(f"--plot {plot} must end in .png")
    for place in (out, *(() if plot is None else (plot,))):
        if not place.parent.is_dir():
            raise OutputError(f"there is no folder {place.parent} to write {place.name} into; make it first")
    if out.exists() and network.exists() and out.samefile(network):
        raise OutputError(f"{out} is the network that is compressed; give the result another name")


def _files(out: Path, found: Sequence[Compressed], safetensors: bool) -> dict[Path, bytes]:
    """The network of each target, its share in the name where there are several."""
    files = dict[Path, bytes]()
    for made in found:
        place = out if len(found) == 1 else out.with_name(f"{out.stem}.{made.target:g}{out.suffix}")
        files[place] = made.onnx
        if safetensors:
            files[place.with_suffix(".safetensors")] = safetensors_of(made)
    return files


def _show(name: str, lines: Sequence[Row], left: Sequence[Left], files: Sequence[Path]) -> None:
    """What there was and what there is, a column each."""
    console = messages()
    table = Table(*lines[0], title=plain(name))
    for row in lines[1:]:
        table.add_row(*row)
    console.print(table)
    for part in left:
        console.print(f"left alone: {plain(part.name)} {plain(part.reason)}")
    for place in files:
        console.print(f"wrote {plain(str(place))}")


def rows(found: Sequence[Compressed], figures: Measured, moved: Sequence[Difference]) -> list[Row]:
    """The lines of the table, headings first; the original in the first column."""
    before = found[0].before
    sizes = [before, *(made.after for made in found)]
    lines: list[Row] = [
        ("", "before", *(f"target {made.target:g}" for made in found)),
        ("parameters", *(f"{s.params:,} ({s.params / before.params:.1%})" for s in sizes)),
        ("multiply-accumulate steps", *(f"{s.macs:,} ({s.macs / before.macs:.1%})" for s in sizes)),
        ("bytes as ONNX", *(f"{s.bytes:,} ({s.bytes / before.bytes:.1%})" for s in sizes)),
    ]
    for title, times in (("ONNX Runtime, ms", figures.runtime), ("torch, ms", figures.torch)):
        if times:
            lines.append((title, *(f"{1e3 * t:.3f} ({t / times[0]:.2f}x)" for t in times)))
    if figures.accuracy:
        lines.append(("accuracy", *(f"{share:.2%}" for share in figures.accuracy)))
    lines.append(("output change (estimate)", "-", *(_loss(made.loss) for made in found)))
    if moved:
        lines.append(
            ("output change on the region (certified)", "-", *(f"<= {at_most(d.largest)}" for d in moved))
        )
        lines.append(("output change on the region (seen)", "-", *(f"{d.largest_seen:.4g}" for d in moved)))
    lines.append(("method", "-", *(f"{made.method}, {made.finish}" for made in found)))
    return lines


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4g}"
