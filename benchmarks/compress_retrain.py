"""Compress, then train again with the last learning rates: no retraining, 5 % and 20 % of the epochs.

    python benchmarks/compress_retrain.py [--quick] [--net mnist|digits] [--share 0,.05,.2] [--keep .3,.2,.1]
        [--method NAME ...] [--seeds N] [--samples N] [--json FILE] [--data FOLDER]
    python benchmarks/compress_retrain.py --cifar TRAIN.npz --device cuda [--share 1] [--keep ...]

The first form trains each network here and takes minutes on a CPU. The second is the experiment of the
paper's Table 1 for ResNet-20 on CIFAR-10 (182 epochs, batch 128, rate 0.1, a tenth at epochs 91 and 136, 5
epochs to warm up, decay 1e-4, crops and flips): it starts from the network of the data bundle and needs a GPU
and the 50,000 training images as TRAIN.npz, x (uint8, NHWC) and y. Its last lines are the smallest networks
that lose at most half a point; published for ALDS: 74.9 % fewer parameters at -0.47.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from small_classifiers import DIGITS, MNIST, digits_data, digits_module, mnist_data, mnist_module
from torch import Tensor, nn
from torch.nn import functional

from sutura.compression.compress import compress
from sutura.compression.retrain import RetrainConfig, retrain
from sutura.compression.study import PORTFOLIO, CompressConfig
from sutura.dataset import Dataset
from sutura.network.graph import Network
from sutura.network.predictions import accuracy, outputs_of
from sutura.network.read import load
from sutura.network.torch_read import from_torch
from sutura.training.config import TrainConfig
from sutura.training.train import Moment, Objective, cross_entropy, train

METHODS = ("alds", "alds-reference", "svd-energy", "pca", PORTFOLIO)
PAPER_KEEPS = tuple(float(k) for k in np.geomspace(0.85, 0.03, 20))
POINTS = 0.5
"""Loss of accuracy, in per cent, up to which a compression counts as free."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A trained network, how it was trained and on what, and what it is judged on."""

    network: Network
    training: RetrainConfig
    learned: Dataset
    test: Dataset
    objective: Objective


@dataclass(frozen=True, slots=True)
class Cell:
    """One network compressed and retrained for a share of its epochs."""

    method: str
    keep: float
    share: float
    seed: int
    params: float
    macs: float
    accuracy: float


def small(name: str, seed: int, arguments: argparse.Namespace) -> Subject:
    """A network trained here: 20 epochs on the first samples of MNIST, 40 on the digits."""
    data, module, training = {
        "mnist": (mnist_data, mnist_module, replace(MNIST, epochs=20)),
        "digits": (digits_data, digits_module, DIGITS),
    }[name]
    learned, test = data(arguments.data, 10_000)
    assert learned.y is not None
    learned = Dataset(name, learned.x[: arguments.samples], learned.y[: arguments.samples])
    training = replace(training, seed=seed)
    network = from_torch(train(module(seed), learned, training).module, torch.tensor(test.x[:1]))
    return Subject(network, RetrainConfig(training), learned, test, Objective())


def cifar(arguments: argparse.Namespace) -> Subject:
    """ResNet-20 of the data bundle with the training of the paper."""
    with np.load(arguments.cifar) as held:
        learned = Dataset("cifar10", _scaled(held["x"]), held["y"].astype(np.int64))
    with np.load(arguments.data / "cifar10" / "cifar10_test.npz") as held:
        test = Dataset("cifar10 test", _scaled(held["x"]), held["y"].astype(np.int64))
    training = TrainConfig(
        epochs=182, batch=128, rate=0.1, optimiser="sgd", momentum=0.9, decay=1e-4, schedule=paper_rate,
        device=arguments.device, every=10,
    )  # fmt: skip
    network = load(arguments.data / "nets" / "cifar10_resnet20.onnx").network
    return Subject(
        network, RetrainConfig(training), learned, test, Objective(augmented, title="crops, flips")
    )


def _scaled(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


def paper_rate(done: float) -> float:
    """Five epochs to warm up, then a tenth at epochs 91 and 136 of 182."""
    epoch = 182 * done
    return min(1.0, (epoch + 1) / 5) * 0.1 ** ((epoch >= 91) + (epoch >= 136))


def augmented(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
    """Cross entropy on random crops of the padded images, half of them mirrored."""
    padded = functional.pad(x, (4, 4, 4, 4))
    batch, _, height, width = x.shape
    corner = torch.randint(0, 9, (2, batch, 1, 1, 1), device=x.device)
    rows = torch.arange(height, device=x.device).view(1, 1, -1, 1) + corner[0]
    columns = torch.arange(width, device=x.device).view(1, 1, 1, -1) + corner[1]
    mirrored = torch.rand(batch, 1, 1, 1, device=x.device) < 0.5
    columns = torch.where(mirrored, 2 * corner[1] + width - 1 - columns, columns)
    samples = torch.arange(batch, device=x.device).view(-1, 1, 1, 1)
    channels = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1)
    return cross_entropy(module, padded[samples, channels, rows, columns], y, moment)


def cells(subject: Subject, methods: Sequence[str], arguments: argparse.Namespace, seed: int) -> list[Cell]:
    """Every method and keep, retrained for every share."""
    found = list[Cell]()
    for method in methods:
        for keep in arguments.keep:
            config = CompressConfig(target=keep, method=method, seed=seed)
            made = compress(subject.network, config, data=subject.learned)
            for share in arguments.share:
                again = made
                if share:
                    how = replace(subject.training, share=share)
                    again = retrain(made, subject.learned, how, objective=subject.objective)
                right = 100 * accuracy(outputs_of(again.network, subject.test.x), subject.test.y)
                kept = (again.after.params / made.before.params, again.after.macs / made.before.macs)
                found.append(Cell(method, keep, share, seed, *kept, right))
    return found


def table(found: Sequence[Cell], before: Sequence[float], name: str) -> Table:
    """A line a method and share, a column each keep."""
    keeps = sorted({cell.keep for cell in found}, reverse=True)
    title = f"{name}: accuracy after retraining (before: {_spread(before)} %)"
    shown = Table("method", "share of epochs", *(f"{keep:.3g}" for keep in keeps), title=title)
    for method in dict.fromkeys(cell.method for cell in found):
        for share in sorted({cell.share for cell in found}):
            mine = [c for c in found if (c.method, c.share) == (method, share)]
            columns = ([c.accuracy for c in mine if c.keep == keep] for keep in keeps)
            shown.add_row(method, f"{share:.0%}", *(_spread(column) for column in columns))
    return shown


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.2f}"


def free(found: Sequence[Cell], before: float) -> list[str]:
    """For each method the smallest network that loses at most half a point."""
    lines = list[str]()
    for method in dict.fromkeys(cell.method for cell in found):
        kept = [c for c in found if c.method == method and c.accuracy >= before - POINTS]
        best = min(kept, key=lambda c: c.params, default=None)
        said = (
            "none"
            if best is None
            else f"{1 - best.params:.1%} fewer parameters, {1 - best.macs:.1%} fewer steps"
        )
        change = "" if best is None else f", {best.accuracy - before:+.2f}"
        lines.append(f"{method}: {said}{change}")
    return lines


def main() -> int:
    """Run the benchmark."""
    arguments, console = _arguments(), Console(width=max(140, Console().width))
    methods, found, before = arguments.method or list(METHODS), list[Cell](), list[float]()
    name = "resnet20" if arguments.cifar else arguments.net
    for seed in range(arguments.seeds):
        subject = cifar(arguments) if arguments.cifar else small(name, seed, arguments)
        before.append(100 * accuracy(outputs_of(subject.network, subject.test.x), subject.test.y))
        found += cells(subject, methods, arguments, seed)
    console.print(table(found, before, name))
    for line in free(found, mean(before)):
        console.print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cell) for cell in found], indent=2) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    def shares(text: str) -> tuple[float, ...]:
        return tuple(float(part) for part in text.split(","))

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    here = Path(os.environ.get("SUTURA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser.add_argument("--quick", action="store_true", help="digits, two methods, one share to keep")
    parser.add_argument("--net", choices=["mnist", "digits"], default="digits")
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 training images (.npz): the paper's experiment")
    parser.add_argument("--device", default="cpu", help="of torch, for --cifar")
    parser.add_argument("--method", action="append", help="may be repeated")
    parser.add_argument("--share", type=shares, help="shares of the epochs to repeat")
    parser.add_argument("--keep", type=shares, help="shares of the parameters to keep")
    parser.add_argument("--seeds", type=int, default=1, help="networks trained, each with its own seed")
    parser.add_argument("--samples", type=int, default=3000, help="of MNIST to train on")
    parser.add_argument("--json", type=Path, help="write all cells there")
    parser.add_argument("--data", type=Path, default=here)
    arguments = parser.parse_args()
    arguments.share = arguments.share or ((1.0,) if arguments.cifar else (0.0, 0.05, 0.2))
    arguments.keep = arguments.keep or (PAPER_KEEPS if arguments.cifar else (0.3, 0.2, 0.1))
    if arguments.quick:
        arguments.net, arguments.method, arguments.keep = "digits", ["alds", PORTFOLIO], (0.2,)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
