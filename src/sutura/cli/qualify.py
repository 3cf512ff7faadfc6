"""`sutura qualify`: how the runtime on this machine rounds, stored as an execution profile."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sutura.cli import options
from sutura.cli.console import Exit, guarded, messages, plain, print_json
from sutura.verdict.qualify import dumps, qualify
from sutura.writing import write_all


@click.command("qualify")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Store the profile (.json).")
@click.option("--exhaustive", is_flag=True, help="Try all float32 inputs of Sigmoid and Tanh; minutes.")
@options.seed
@options.as_json
@guarded
def command(out: Path | None, exhaustive: bool, seed: int, as_json: bool) -> Exit:
    """Measure ONNX Runtime on this machine: sutura qualify -o runtime.json

    Sums and products against exact numbers, Sigmoid and Tanh against their functions, subnormals, batches.
    The profile goes to `sutura verify --profile runtime.json`; claims then name the runtime.
    """
    found = qualify(exhaustive=exhaustive, seed=seed)
    data = dumps(found)
    if out is not None:
        write_all({out: data})
    if as_json:
        print_json(json.loads(data))
        return Exit.HOLDS
    console = messages()
    console.print(f"{plain(found.runtime)} on {plain(found.processor)}: {found.execution}")
    console.print(f"sums use at most {found.share:.3f} of the error bound; subnormals are {found.subnormals}")
    console.print(f"the same bits in every batch size: {'yes' if found.same_in_batches else 'no'}")
    for curve in found.curves:
        console.print(
            f"{curve.operator}: errs by at most {curve.error:.3g} on {curve.inputs:,} inputs; "
            f"{curve.outside} outputs leave its range, {curve.decreasing} neighbours decrease"
        )
    return Exit.HOLDS
