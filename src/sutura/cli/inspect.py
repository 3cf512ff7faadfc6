"""`sutura inspect`: every node of a network, all at once."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table
from rich.tree import Tree as Branches

from sutura.cli import options
from sutura.cli.console import Exit, guarded, messages, plain, print_json
from sutura.gates.cells import Cell
from sutura.gates.cells import Tree as Cells
from sutura.gates.table import gate_table, is_gated
from sutura.network.external_data import with_external_data
from sutura.network.inspect import Inspection, inspect_onnx
from sutura.network.onnx_read import file_bytes
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.report.document import document, gates, inspection

DispatchTree = Cells[int]

MOST_LINES = 60
"""Nodes of a dispatch tree that are drawn."""

MOST_SIDES = 6
"""Inputs whose ends are written out for each row."""


@click.command("inspect")
@click.argument("network", type=click.Path(path_type=Path))
@options.external_data
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@guarded
def command(network: Path, external_data: bool, as_json: bool) -> Exit:
    """List every node of NETWORK with its shape, supported or not; of a repaired one, draw the gates."""
    data = file_bytes(network) if network.suffix.lower() == ".onnx" else write_onnx(load(network).network)
    if external_data:
        data = with_external_data(data, network.parent)
    if is_gated(data):
        return _gates(data, network.name, as_json)
    found = inspect_onnx(data, network.name)
    if as_json:
        print_json(document("inspect", inspection(found)))
    else:
        _show(found)
    if not found.supported:
        return Exit.VIOLATED
    difference = load(network, external_data=external_data).difference
    if not as_json:
        messages().print(f"agrees with ONNX Runtime within {difference:.3g} on random points")
    return Exit.HOLDS


def _gates(data: bytes, name: str, as_json: bool) -> Exit:
    table = gate_table(data)
    assert table is not None
    if as_json:
        print_json(document("inspect", {"name": name, **gates(table)}))
        return Exit.HOLDS
    console = messages()
    rows = Table("row", "gate", "neurons held", "cells", "of the gated volume", "around", title=plain(name))
    for row in table.rows[1:]:
        sides = zip(row.low[:MOST_SIDES], row.high, strict=False)
        around = ", ".join(f"X_{d} {low:.4g}..{high:.4g}" for d, (low, high) in enumerate(sides))
        more = " ..." if len(row.low) > MOST_SIDES else ""
        rows.add_row(
            str(row.number), row.kind, str(row.neurons), str(row.cells), f"{row.share:.2%}", around + more
        )
    console.print(rows)
    console.print(_drawn(table.tree))
    console.print(
        f"{(len(table.tree) + 1) // 2:,} cells, {table.depth} comparisons on the longest way; row 0 is the "
        "network as it was"
    )
    return Exit.HOLDS


def _drawn(tree: DispatchTree) -> Branches:
    """The dispatch tree, as far as MOST_LINES; what is deeper is counted."""
    root = Branches("[bold]inputs[/]")
    todo = [(root, "")]
    for drawn, node in enumerate(tree):
        place, said = todo.pop()
        if drawn >= MOST_LINES:
            root.add(f"... and {len(tree) - drawn:,} nodes more; --json has all rows")
            break
        if isinstance(node, Cell):
            place.add(
                f"{said}[green]as it was[/]" if node.label == 0 else f"{said}[yellow]row {node.label}[/]"
            )
            continue
        inner = place.add(f"{said}X_{node.dim} against {node.threshold:.6g}")
        todo += [(inner, "above: "), (inner, "up to: ")]
    return root


def _show(found: Inspection) -> None:
    console = messages()
    table = Table("node", "operator", "inputs", "output", "supported", title=plain(found.name))
    for node in found.nodes:
        inputs = " ".join(_shape(s) for s in node.inputs)
        said = "yes" if node.supported else f"[red]no[/]: {plain(node.reason)}"
        table.add_row(plain(node.name), plain(node.operator), inputs, _shape(node.output), said)
    console.print(table)
    unsupported = sum(not node.supported for node in found.nodes)
    console.print(f"{len(found.nodes)} nodes, {unsupported} unsupported; {found.parameters:,} parameters")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "?" if shape is None else "x".join(str(d) for d in shape) or "scalar"
