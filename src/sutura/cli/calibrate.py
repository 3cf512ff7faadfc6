"""`sutura calibrate`: a network whose probabilities mean what they say."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sutura.calibration.calibrate import METHODS, Calibrated, calibrate
from sutura.calibration.class_distance import ByClass
from sutura.calibration.config import CalibrateConfig
from sutura.calibration.distance import ByDistance
from sutura.calibration.scaling import Affine
from sutura.cli import options
from sutura.cli.console import Exit, epochs, guarded, messages, plain, print_json
from sutura.dataset import read_dataset
from sutura.errors import CalibrationError, RefusedError
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.report import reliability
from sutura.report.document import document
from sutura.training.config import TrainConfig
from sutura.writing import write_all


@click.command("calibrate")
@click.argument("network", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Labelled samples (.npz: x, y).")
@click.option(
    "--method", metavar="NAME", default="temperature", show_default=True, help=f"One of {', '.join(METHODS)}."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The calibrated network (.onnx).")
@click.option("--plot", type=click.Path(path_type=Path), help="Reliability before and after (.png).")
@click.option("--holdout", type=float, default=0.2, show_default=True, help="Share kept for the figures.")
@click.option(
    "--form",
    type=click.Choice(["released", "paper"]),
    default="released",
    show_default=True,
    help="FALCON as its authors' code has it, or as the paper does.",
)
@click.option("--epochs", "rounds", type=int, default=10, show_default=True, help="Where a method trains.")
@click.option("--rate", type=float, default=1e-4, show_default=True, help="Learning rate.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Go on from here, and write here.")
@options.external_data
@options.seed
@options.as_json
@guarded
def command(
    network: Path,
    data: Path,
    method: str,
    out: Path | None,
    plot: Path | None,
    holdout: float,
    form: Any,
    rounds: int,
    rate: float,
    checkpoint: Path | None,
    external_data: bool,
    seed: int,
    as_json: bool,
) -> Exit:
    """Calibrate a classifier: sutura calibrate NET.onnx --data v.npz --method temperature -o calibrated.onnx

    The data must not be what the network was trained on. A share of them is kept apart for the figures, which
    are estimates. The calibrated network is an ordinary one and goes on into verify and repair. Exit code 1,
    and nothing written, where accuracy would fall by more than one point.
    """
    _check_writable(method, out)
    if plot is not None:
        reliability.check_possible()
    train = TrainConfig(epochs=rounds, rate=rate, seed=seed)
    config = CalibrateConfig(method=method, holdout=holdout, seed=seed, train=train)
    if method == "falcon":
        config = replace(config, falcon=_falcon(form))
    loaded = load(network, external_data=external_data)
    samples = read_dataset(data, labelled=True, sample=loaded.network.input_shape)
    try:
        with epochs(quiet=as_json) as listen:
            found = calibrate(loaded, samples, config, listen=listen, checkpoint=checkpoint)
    except RefusedError as refusal:
        messages().print(f"[bold red]refused:[/] {plain(str(refusal))}")
        return Exit.VIOLATED
    files = _files(found, out, plot)
    write_all(files)
    if as_json:
        print_json(document("calibrate", _body(network, data, found, [str(place) for place in files])))
    else:
        _show(found, [str(place) for place in files])
    return Exit.HOLDS


def _check_writable(method: str, out: Path | None) -> None:
    if out is not None and method in METHODS and not METHODS[method].one_network:
        single = ", ".join(name for name, entry in METHODS.items() if entry.one_network)
        raise CalibrationError(
            f"{method} makes no single network to write; leave out -o, or use one of {single}"
        )


def _falcon(form: Any) -> Any:
    from sutura.extras import require

    require("torch", "torch")
    from sutura.calibration.falcon import FalconConfig

    return FalconConfig(form=form)


def _files(found: Calibrated, out: Path | None, plot: Path | None) -> dict[Path, bytes]:
    files: dict[Path, bytes] = {}
    if out is not None and found.network is not None:
        files[out] = write_onnx(found.network)
    if plot is not None:
        names = ("before", found.method)
        files[plot] = reliability.reliability(dict(zip(names, found.outcomes, strict=True)))
    return files


def _body(network: Path, data: Path, found: Calibrated, files: list[str]) -> dict[str, Any]:
    body: dict[str, Any] = {"network": network.name, "data": data.name, "method": found.method}
    if isinstance(found.made.scaling, Affine):
        body["scaling"] = {
            "scale": found.made.scaling.scale.tolist(),
            "offset": found.made.scaling.offset.tolist(),
        }
    if isinstance(found.made.scaling, ByDistance):
        scale = found.made.scaling
        body["scaling"] = {"near": scale.near, "far": scale.far, "start": scale.start, "end": scale.end}
    if isinstance(found.made.scaling, ByClass):
        scale = found.made.scaling
        body["scaling"] = {"near": scale.near, "far": 1.0, "start": scale.start, "end": scale.end}
    return body | {
        "held_out_samples": found.samples,
        "before": asdict(found.before),
        "after": asdict(found.after),
        "after_95": asdict(found.interval),
        "reliability": {
            name: reliability.bins(part)
            for name, part in zip(("before", "after"), found.outcomes, strict=True)
        },
        "seconds": found.seconds,
        "files": files,
    }


def _show(found: Calibrated, files: list[str]) -> None:
    before, after = asdict(found.before), asdict(found.after)
    low, high = asdict(found.interval.low), asdict(found.interval.high)
    table = Table(
        "estimate", "before", "after", "95 %", title=f"{found.method}, {found.samples} held-out samples"
    )
    for name in before:
        table.add_row(
            name.replace("_", " "),
            *(f"{v[name]:.4f}" for v in (before, after)),
            f"{low[name]:.4f}-{high[name]:.4f}",
        )
    console = messages()
    console.print(table)
    scaling = found.made.scaling
    if isinstance(scaling, Affine) and not scaling.offset.any():
        console.print(f"temperature {1 / scaling.scale[0]:.4f}")
    if isinstance(scaling, ByDistance):
        console.print(
            f"temperature {1 / scaling.near:.4f} near the data, {1 / scaling.far:.4f} far from them"
        )
    if isinstance(scaling, ByClass):
        console.print(f"temperature {1 / scaling.near:.4f} near the class that is named, 1 far from it")
    if found.after.nll > found.before.nll and found.after.ece > found.before.ece:
        console.print(
            "[yellow]worse on the held-out samples, in nll and in ece: give more data, or another method[/]"
        )
    for file in files:
        console.print(f"wrote {plain(file)}")
