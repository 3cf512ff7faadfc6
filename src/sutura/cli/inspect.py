"""`sutura inspect`: every node of a network, all at once."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from sutura.cli.console import Exit, guarded, messages, plain, print_json
from sutura.network.inspect import Inspection, inspect_onnx
from sutura.network.onnx_read import file_bytes
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.report.document import document, inspection


@click.command("inspect")
@click.argument("network", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@guarded
def command(network: Path, as_json: bool) -> Exit:
    """List every node of NETWORK with its shape, supported or not, all at once."""
    data = file_bytes(network) if network.suffix.lower() == ".onnx" else write_onnx(load(network).network)
    found = inspect_onnx(data, network.name)
    if as_json:
        print_json(document("inspect", inspection(found)))
    else:
        _show(found)
    if not found.supported:
        return Exit.VIOLATED
    difference = load(network).difference
    if not as_json:
        messages().print(f"agrees with ONNX Runtime within {difference:.3g} on random points")
    return Exit.HOLDS


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
