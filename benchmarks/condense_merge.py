"""Hidden neurons taken away without retraining and without data: our merge beside pruning and Neuron Merging.

    python benchmarks/condense_merge.py [--quick] [--sets A,B] [--starts A,B] [--longer N] [--rate R]
        [--seeds N] [--data FOLDER] [--json FILE]

Each network is trained from default weights and from condensing ones (gamma 1.5 and 2), then cut to a share
of its hidden neurons: `ward` is sutura's merge, `merging` Neuron Merging (Kim et al., NeurIPS 2020: neurons
of
smallest l1 norm go, their outgoing weights to the most alike that stays, where the cosine exceeds .45),
`prune` the same without that. Test accuracy in per cent, mean over seeds; `bound` is the weights-alone bound
over the
data's box, divided by the largest change seen on the test set.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import nn

from sutura.condensation.blocks import Weights, blocks, replaced, weights
from sutura.condensation.bound import merge_bound
from sutura.condensation.initial import condensing
from sutura.condensation.merge import merge, plan
from sutura.condensation.target import accuracy_of
from sutura.dataset import Dataset
from sutura.network.evaluate import evaluate
from sutura.network.graph import Network
from sutura.network.torch_read import from_torch
from sutura.training.config import TrainConfig
from sutura.training.train import train

ALIKE = 0.45
"""Cosine from which Neuron Merging hands weights on, as published."""

RATE = 1e-3
"""First rate of Adam."""

STARTS: dict[str, float | None] = {"default": None, "gamma 1.5": 1.5, "gamma 2": 2.0}


def split(
    name: str, folder: Path, quick: bool
) -> tuple[Dataset, Dataset, tuple[int, ...], tuple[float, ...]]:
    """Training and test data, the widths of the network, and the shares kept."""
    if name == "digits":
        x, y = load_digits(return_X_y=True)
        x, order = (x / 16.0).astype(np.float32), np.random.default_rng(0).permutation(len(x))
        cut, shares = order[:1200], (1.0, 0.5, 0.3, 0.2, 0.15, 0.1)
        return _data(x, y, cut), _data(x, y, order[1200:]), (64, 100, 10), shares
    file = "mnist.npz" if name == "mnist" else "fashion_mnist_10k.npz"
    held = np.load(folder / ("mnist" if name == "mnist" else "fashion_mnist") / file)
    count = 2000 if quick else len(held["x_train"])
    train_set, test_set = (
        Dataset(name, (held[f"x_{part}"].reshape(-1, 784)[:most] / 255.0).astype(np.float32),
                held[f"y_{part}"][:most].astype(np.int64))
        for part, most in (("train", count), ("test", 2000 if quick else 10_000))
    )  # fmt: skip
    return train_set, test_set, (784, 300, 100, 10), (1.0, 0.5, 0.4, 0.3, 0.2, 0.1)


def _data(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Dataset:
    return Dataset("digits", x[rows], y[rows].astype(np.int64))


def trained(
    data: Dataset, widths: tuple[int, ...], gamma: float | None, seed: int, steps: tuple[int, float]
) -> Network:
    """A ReLU network trained with Adam for so many epochs from that rate on."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.ReLU()]
    module: nn.Module = nn.Sequential(*layers[:-1])
    if gamma is not None:
        module = condensing(module, gamma, seed)
    config = TrainConfig(epochs=steps[0], batch=128, rate=steps[1], seed=seed, schedule="cosine")
    return from_torch(train(module, data, config).module, torch.tensor(data.x[:2]))


def pruned(network: Network, share: float, *, merging: bool) -> Network:
    """Every hidden layer keeps that share of its neurons: those of largest l1 norm."""
    for at in range(len(blocks(network))):
        block = blocks(network)[at]
        held = weights(block)
        assert held.bias is not None
        points = np.concatenate([held.incoming, held.bias[:, None]], axis=1)
        order = np.argsort(-abs(held.incoming).sum(axis=1), kind="stable")
        count = max(1, round(share * len(order)))
        kept, gone = np.sort(order[:count]), order[count:]
        outgoing = held.outgoing[kept].copy()
        if merging:
            length = np.linalg.norm(points, axis=1)
            cosine = (points[gone] @ points[kept].T) / np.maximum(np.outer(length[gone], length[kept]), 1e-30)
            for row, lost in zip(cosine, gone, strict=True):
                best = int(row.argmax())
                if row[best] > ALIKE:
                    outgoing[best] += held.outgoing[lost] * length[lost] / length[kept[best]]
        new = {
            n.output: n
            for n in replaced(block, Weights(held.incoming[kept], held.bias[kept], outgoing), None)
        }
        shapes = {**network.shapes, block.source.output: (count,), block.activation.output: (count,)}
        network = replace(network, nodes=tuple(new.get(n.output, n) for n in network.nodes), shapes=shapes)
    return network


def cut_down(network: Network, share: float, test: Dataset) -> dict[str, float]:
    """Accuracies of all methods at one size, and how loose the bound of ours is."""
    planned = plan(network)
    merged = merge(planned, max(planned.least, round(share * planned.neurons)))
    box = np.zeros(network.input_size), np.ones(network.input_size)
    moved = abs(evaluate(merged.network, test.x[:500]) - evaluate(network, test.x[:500])).max()
    loose = float(merge_bound(merged, *box).max()) / float(moved) if moved and merged.steps else float("nan")
    scores: dict[str, Callable[[], Network]] = {
        "ward": lambda: merged.network,
        "merging": lambda: pruned(network, share, merging=True),
        "prune": lambda: pruned(network, share, merging=False),
    }
    return {k: 100.0 * accuracy_of(make(), test, "argmax") for k, make in scores.items()} | {"bound": loose}


def run(name: str, options: argparse.Namespace) -> list[dict[str, object]]:
    """All starts and sizes of one data set."""
    train_set, test, widths, shares = split(name, options.data, options.quick)
    epochs = options.longer * {"digits": 300, "mnist": 8, "fashion": 20}[name] // (4 if options.quick else 1)
    rows: list[dict[str, object]] = []
    for start in options.starts.split(","):
        gamma = STARTS[start]
        networks = [
            trained(train_set, widths, gamma, seed, (epochs, options.rate)) for seed in range(options.seeds)
        ]
        for share in shares:
            each = [cut_down(network, share, test) for network in networks]
            mean = {k: float(np.mean([e[k] for e in each])) for k in each[0]}
            rows.append({"data": name, "start": start, "keep": share, **mean})
    return rows


def show(rows: Sequence[dict[str, object]]) -> None:
    """The table on stdout."""
    table = Table("data", "start", "kept", "ward", "merging", "prune", "bound / change")
    for r in rows:
        figures = [f"{r[k]:.1f}" for k in ("ward", "merging", "prune", "bound")]
        table.add_row(str(r["data"]), str(r["start"]), f"{r['keep']:.0%}", *figures)
    Console(width=100).print(table)


def main() -> None:
    """Parse the options, run, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--sets", default="digits,mnist,fashion", help="data sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--starts", default=",".join(STARTS), help="initial weights")
    parser.add_argument("--longer", type=int, default=1, help="times the epochs")
    parser.add_argument("--rate", type=float, default=RATE, help="first rate of Adam, for all starts")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.seeds = 1
    names = [n for n in options.sets.split(",") if n == "digits" or (options.data / "mnist").is_dir()]
    rows = [row for name in names for row in run(name, options)]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
