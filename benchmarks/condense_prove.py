"""The same robustness properties proved on a default, a condensed-and-merged and a small default network.

    python benchmarks/condense_prove.py [--quick] [--images N] [--eps E,F] [--timeout S] [--keep SHARE]
        [--samples N] [--epochs N] [--gamma G] [--seed N] [--json FILE] [--data FOLDER]

All are ReLU networks for MNIST, 784-300-100-10 at first. `default` and `condensed` differ in their initial
weights (N(0, m^(-2 gamma)) for the second) and, to reach one accuracy, in --condensed-epochs; `merged` is the
condensed one after cutting its hidden neurons to a share without retraining; `small` is trained from default
weights at the widths of `merged`. Each
is asked, for the same test images (the first that all of them get right) and radii, whether its decision
stays in the ball cut to [0, 1]: one verification after the other, networks in turn, on one core. `proved` and
`broken` are shares of the images; seconds are CPU seconds of the whole verification, mean and median. The
line `carried` proves on `merged`, beside a certified difference of the two on each ball (in its seconds),
what makes the decision of `condensed` stay.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from condense_merge import RATE, split, trained
from rich.console import Console
from rich.table import Table

from sutura.condensation.carry import carried
from sutura.condensation.merge import plan
from sutura.condensation.target import merged_to_share
from sutura.dataset import Dataset
from sutura.network.evaluate import evaluate
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded, load
from sutura.property.build import robustness
from sutura.property.spec import Property
from sutura.verdict.difference import DiffConfig, diff
from sutura.verdict.outcome import Proved, Violated
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify


@dataclass(frozen=True, slots=True)
class Row:
    """What one network did at one radius."""

    network: str
    hidden: tuple[int, ...]
    accuracy: float
    eps: float
    images: int
    proved: float
    broken: float
    seconds_mean: float
    seconds_median: float


def contestants(options: argparse.Namespace) -> tuple[dict[str, Network], Dataset]:
    """The networks by name, and the test images."""
    learned, test, widths, _ = split("mnist", options.data, quick=False)
    assert learned.y is not None
    learned = Dataset("mnist", learned.x[: options.samples], learned.y[: options.samples])
    longer = options.condensed_epochs or options.epochs
    made = [
        trained(learned, widths, None, options.seed, (options.epochs, RATE)),
        trained(learned, widths, options.gamma, options.seed, (longer, RATE)),
    ]
    merged = merged_to_share(plan(made[1]), options.keep)
    thin = (widths[0], *(layer.after for layer in merged.layers), widths[-1])
    small = trained(learned, thin, None, options.seed, (options.epochs, RATE))
    return dict(zip(NAMES, (*made, merged.network, small), strict=True)), test


NAMES = ("default", "condensed", "merged", "small")


def right(network: Network, test: Dataset) -> np.ndarray:
    """Which test images a network gets right."""
    return evaluate(network, test.x).argmax(axis=1) == test.y


def asked(networks: dict[str, Network], test: Dataset, options: argparse.Namespace) -> list[Row]:
    """Every network at every radius, on the same images."""
    assert test.y is not None
    correct = {name: right(network, test) for name, network in networks.items()}
    chosen = np.flatnonzero(np.all(list(correct.values()), axis=0))[: options.images]
    loaded = {name: load(write_onnx(replace(net, sha256="")), name=name) for name, net in networks.items()}
    config = VerifyConfig(timeout=options.timeout, workers=1)
    rows = list[Row]()
    for eps in options.eps:
        told: dict[str, list[tuple[object, float]]] = {name: [] for name in (*networks, "carried")}
        for index in chosen:
            prop = robustness(test.x[index], eps, int(test.y[index]), classes=10)
            for name in networks:
                began = time.process_time()
                verdict = verify(loaded[name], prop, config).verdict
                told[name].append((verdict, time.process_time() - began))
            began = time.process_time()
            told["carried"].append((through(loaded, prop, options.timeout), time.process_time() - began))
        for name, answers in told.items():
            of = "merged" if name == "carried" else name
            rows.append(_row(name, networks[of], 100 * float(correct[of].mean()), eps, answers))
    return rows


def through(loaded: dict[str, Loaded], prop: Property, seconds: float) -> object:
    """The verdict on the condensed network by a proof on the merged one; only a proof carries over."""
    began = time.monotonic()
    apart = diff(loaded["condensed"], loaded["merged"], prop, DiffConfig(samples=16, timeout=seconds))
    left = max(seconds - (time.monotonic() - began), 0.1)
    verdict = verify(loaded["merged"], carried(prop, apart), VerifyConfig(timeout=left, workers=1)).verdict
    return None if isinstance(verdict, Violated) else verdict


def _row(
    name: str, network: Network, accuracy: float, eps: float, told: Sequence[tuple[object, float]]
) -> Row:
    hidden = [len(np.ravel(np.zeros(network.shapes[node.output]))) for node in network.nodes]
    kinds = [type(node.op).__name__ for node in network.nodes]
    return Row(
        name,
        tuple(size for size, kind in zip(hidden, kinds, strict=True) if kind == "Relu"),
        accuracy,
        eps,
        len(told),
        mean(isinstance(verdict, Proved) for verdict, _ in told),
        mean(isinstance(verdict, Violated) for verdict, _ in told),
        mean(seconds for _, seconds in told),
        median(seconds for _, seconds in told),
    )


def table(rows: Sequence[Row]) -> Table:
    """A line a network and radius."""
    shown = Table("radius", "network", "hidden", "accuracy", "proved", "broken", "CPU s, mean", "median")
    for r in sorted(rows, key=lambda r: r.eps):
        hidden = "-".join(map(str, r.hidden))
        shares = f"{r.proved:.0%}", f"{r.broken:.0%}"
        times = f"{r.seconds_mean:.2f}", f"{r.seconds_median:.2f}"
        shown.add_row(f"{r.eps:g}", r.network, hidden, f"{r.accuracy:.1f}", *shares, *times)
    return shown


def main() -> None:
    """Train, ask, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    here = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--quick", action="store_true", help="3,000 training images, four to prove, 2 s each")
    parser.add_argument("--images", type=int, default=20, help="test images to prove")
    parser.add_argument("--eps", default="0.01,0.02", help="radii, inputs being in [0, 1]")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds a verification")
    parser.add_argument("--keep", type=float, default=0.2, help="share of hidden neurons that merging keeps")
    parser.add_argument("--samples", type=int, default=60_000, help="training images")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--condensed-epochs", type=int, help="of the slower start; --epochs by default")
    parser.add_argument("--gamma", type=float, default=1.5, help="of the condensing initialisation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", here)))
    options = parser.parse_args()
    if options.quick:
        options.samples, options.epochs, options.images, options.timeout = 3000, 15, 4, 2.0
        options.eps = "0.01"
    options.eps = tuple(float(part) for part in options.eps.split(","))
    torch.set_num_threads(1)
    rows = asked(*contestants(options), options)
    Console(width=110).print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
