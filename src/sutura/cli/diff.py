"""`sutura diff`: how far can two networks differ on a region, and can they decide otherwise?"""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from sutura.cli import options
from sutura.cli.console import Exit, bar, guarded, messages, plain, print_json
from sutura.network.read import load
from sutura.outward import at_least, at_most, share_at_least
from sutura.property.read import read_property
from sutura.report.difference import difference
from sutura.report.document import document
from sutura.verdict.agreement import Decision
from sutura.verdict.difference import DiffConfig, Difference, diff


@click.command("diff")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option(
    "--region",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PROP",
    help="A property; its input boxes are the region.",
)
@click.option("--at-most", type=click.FloatRange(min=0), help="Ask whether no output differs by more.")
@click.option(
    "--boxes", type=click.IntRange(min=1), help="Boxes to bound at most; by the problem if left out."
)
@click.option(
    "--samples", type=click.IntRange(min=2), default=4096, show_default=True, help="Random points run."
)
@options.decision
@options.timeout
@options.external_data
@options.seed
@options.as_json
@guarded
def command(
    first: Path,
    second: Path,
    region: Path,
    at_most: float | None,
    boxes: int | None,
    samples: int,
    decision: Decision,
    timeout: float | None,
    external_data: bool,
    seed: int,
    as_json: bool,
) -> Exit:
    """Bound how far two networks differ on a region: sutura diff A.onnx B.onnx --region PROP.vnnlib

    The bound holds for every float32 execution of both. Exit code 0; with --at-most 0 where no output differs
    by more, 1 where one was seen to, 3 where that is not known.
    """
    config = DiffConfig(boxes, samples, timeout, seed, decision)
    prop = read_property(region)
    one, other = (load(file, external_data=external_data) for file in (first, second))
    with bar(quiet=as_json) as listen:
        found = diff(one, other, prop, config, listen=listen)
    if as_json:
        named = {"first": one.network.name, "second": other.network.name, "region": prop.name}
        print_json(document("diff", {**named, "at_most": at_most, **difference(found)}))
    else:
        show(found)
    if at_most is None or found.largest <= at_most:
        return Exit.HOLDS
    return Exit.VIOLATED if found.largest_seen > at_most else Exit.UNKNOWN


def show(found: Difference) -> None:
    """Bounds of every output, then what is known of the decision."""
    table = Table(
        "output", "certified", "seen", "by separate bounds", title="first - second", title_justify="left"
    )
    for at, columns in enumerate(zip(found.low, found.high, *found.attained, *found.separate, strict=True)):
        low, high, least, most, apart_low, apart_high = columns
        certified, apart = (
            f"{at_least(a)} .. {at_most(b)}" for a, b in ((low, high), (apart_low, apart_high))
        )
        table.add_row(f"Y_{at}", certified, f"{least:.4g} .. {most:.4g}", apart)
    console = messages()
    console.print(table)
    console.print(
        f"no output differs by more than {at_most(found.largest)} (certified); {found.largest_seen:.4g} was "
        f"seen   [{found.boxes:,} boxes, {found.seconds:.1f} s]"
    )
    if found.changed is not None:
        where = ", ".join(f"{v:.9g}" for v in found.changed.input[:16])
        console.print(f"the decision differs (ONNX Runtime) at: {plain(where)}")
    elif found.decides_alike:
        console.print("both decide alike all over the region (certified)")
    else:
        console.print(
            "whether they ever decide otherwise is not known: alike on "
            f"{share_at_least(found.same_share)} of the region (certified), and no sample differs"
        )
