"""`sutura condense`: where a network's neurons point, and the network with those of one line merged."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from sutura.cli import options
from sutura.cli.console import Exit, bar, guarded, messages, plain, print_json
from sutura.condensation.carry import Carry
from sutura.condensation.condense import CondenseConfig, Condensed, condense
from sutura.dataset import read_dataset
from sutura.errors import OutputError
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.outward import at_most
from sutura.property.read import read_property
from sutura.report.condensation import condensed
from sutura.report.document import WORDS, document
from sutura.report.orientation_map import orientation_map
from sutura.verdict.agreement import Decision
from sutura.verdict.difference import DiffConfig
from sutura.writing import write_all


@click.command("condense")
@click.argument("network", type=click.Path(path_type=Path))
@click.option("--merge", "keep", type=float, metavar="SHARE", help="Keep this share of the hidden neurons.")
@click.option("--lose", type=click.FloatRange(min=0), help="Merge until so many points of accuracy are lost.")
@click.option("--at-most", type=click.FloatRange(min=0), help="Merge up to this certified difference.")
@click.option("--data", type=click.Path(path_type=Path), help="Labelled samples (.npz with x and y).")
@click.option("--region", type=click.Path(path_type=Path), metavar="PROP", help="Its boxes; for the bounds.")
@click.option(
    "--prove",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PROP",
    help="Prove it of the merged network and, through the certified difference, of NET; may be repeated.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The merged network (.onnx).")
@click.option("--plot", type=click.Path(path_type=Path), help="Heat maps of the orientations (.png).")
@click.option("--boxes", type=click.IntRange(min=1), help="Boxes to bound for a certified difference.")
@options.decision
@options.timeout
@options.external_data
@options.seed
@options.as_json
@guarded
def command(
    network: Path,
    keep: float | None,
    lose: float | None,
    at_most: float | None,
    data: Path | None,
    region: Path | None,
    prove: tuple[Path, ...],
    out: Path | None,
    plot: Path | None,
    boxes: int | None,
    decision: Decision,
    timeout: float | None,
    external_data: bool,
    seed: int,
    as_json: bool,
) -> Exit:
    """Measure orientations, and merge: sutura condense NET.onnx [--merge 0.5 -o merged.onnx]

    Without a target (--merge, --lose or --at-most) the orientations of every layer are counted and drawn.
    With --region the merge comes with a bound from the weights alone and with a certified one. With --prove
    the exit code is 0 where every property is proved of NET, else 3.
    """
    merging = not (keep is lose is at_most is None)
    _check_out(out, plot, merging)
    held = None if data is None else read_dataset(data, labelled=True)
    where = None if region is None else read_property(region)
    how = DiffConfig(boxes=boxes, timeout=timeout, seed=seed, decision=decision)
    config = CondenseConfig(keep, lose, at_most, held, where, tuple(map(read_property, prove)), how)
    loaded = load(network, external_data=external_data)
    with bar(quiet=as_json) as listen:
        found = condense(loaded, config, listen=listen)
    files: dict[Path, bytes] = {}
    if out is not None and found.network is not None:
        files[out] = write_onnx(found.network)
    if plot is not None:
        files[plot] = orientation_map(found.layers)
    write_all(files)
    named = [str(place) for place in files]
    if as_json:
        print_json(document("condense", {"network": loaded.network.name, **condensed(found), "files": named}))
    else:
        show(found)
        for place in named:
            messages().print(f"wrote {plain(place)}")
    return Exit.HOLDS if all(carry.over for carry in found.carries) else Exit.UNKNOWN


def _check_out(out: Path | None, plot: Path | None, merging: bool) -> None:
    """Raise OutputError, before any work, where results would be lost or could not be written."""
    if merging != (out is not None):
        raise OutputError(
            "-o OUT.onnx and a target (--merge, --lose or --at-most) go together: a file and its size"
        )
    for place, suffix in ((out, ".onnx"), (plot, ".png")):
        if place is not None and place.suffix.lower() != suffix:
            raise OutputError(f"{place} must end in {suffix}: that is what is written")


def show(found: Condensed) -> None:
    """Counts a layer, then what merging did."""
    table = Table("layer", "neurons", "lines", "orientations", "lines at .99", "orientations at .99")
    for layer in found.layers:
        counts = [str(n) for c in layer.counts for n in (c.lines, c.orientations)]
        table.add_row(plain(layer.node), str(layer.neurons), *counts)
    console = messages()
    console.print(table)
    if found.merged is None:
        return
    kept = ", ".join(f"{layer.before} to {layer.after}" for layer in found.merged.layers)
    console.print(f"hidden neurons merged: {kept}")
    if found.accuracies is not None:
        console.print(
            f"accuracy (ONNX Runtime): {found.accuracies[0]:.2%} before, {found.accuracies[1]:.2%} after"
        )
    if found.bound is not None:
        console.print(f"bound from the weights alone: {at_most(float(found.bound.max()))} (over the reals)")
    if found.difference is not None:
        console.print(
            f"certified difference: {at_most(found.difference.largest)}"
            f" (seen: {found.difference.largest_seen:.4g})"
        )
    for carry in found.carries:
        console.print(_told(carry))


def _told(carry: Carry) -> str:
    """One line on a property."""
    name = plain(carry.name)
    if carry.difference is None or carry.widened is None:
        word = WORDS[type(carry.merged.verdict)]
        return f"{name}: {word} of the merged network; nothing carries over to the original"
    apart = f"outputs differ by at most {carry.difference.largest:.4g} there"
    if carry.over:
        return f"{name}: proved of both networks; {apart}"
    word = WORDS[type(carry.widened.verdict)]
    return f"{name}: proved of the merged network alone; {apart}, and with that much room it is {word}"
