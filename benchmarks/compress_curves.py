"""Curves of accuracy against size: networks compressed without retraining, every method side by side.

    python benchmarks/compress_curves.py [--quick] [--net NAME ...] [--method NAME ...] [--keep .9,.5,.2]
        [--budget params,macs] [--images N] [--store FILE] [--json FILE] [--data FOLDER]

Each cell is one network, method, kind of budget and share to keep: kept parameters and steps, the largest
error by the method's own measure, accuracy on N test images (the first of a fixed shuffle) in ONNX Runtime,
seconds to choose splits (tables apart). Cells are kept in --store and never computed twice. Methods that draw
random numbers (the starts of ALDS, calibration samples) run with as many seeds as --seeds says.

Networks: the CIFAR-10 ResNet-20 and ResNet-56 of the data bundle, calibrated on 400 training images; a
convolutional network for MNIST and one for the digits of scikit-learn, trained here (needs torch, sklearn).
`area` is the mean accuracy over the shares. --latency runs the last table instead: measured time in ONNX
Runtime at batch 1 beside the original, medians of interleaved runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table
from small_classifiers import digits, mnist
from threadpoolctl import threadpool_limits

from sutura.compression.compress import Compressed, at
from sutura.compression.finish import AS_BUILT
from sutura.compression.latency import in_runtime, medians
from sutura.compression.methods import METHODS
from sutura.compression.study import PORTFOLIO, CompressConfig, study
from sutura.dataset import Dataset
from sutura.errors import CompressionError
from sutura.network.graph import Network
from sutura.network.predictions import accuracy, outputs, outputs_of
from sutura.network.read import load
from sutura.writing import write_all

KEEPS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
QUICK_KEEPS = (0.5, 0.3)
PUBLISHED = tuple(name for name, method in METHODS.items() if method.published)
DEFAULT = (
    "alds", "alds-reference", "svd", "svd-energy", "svd-error", "l-rank", "pca",
    "exact", "exact-reference", "frobenius", "whitened", PORTFOLIO,
)  # fmt: skip
RANDOM = ("alds", "alds-reference", "alds-plus", "alds-plus-reference", "whitened", PORTFOLIO)
SHUFFLE = 2026
"""Seed of the order in which test images are taken."""

ROUNDS = 60
"""Interleaved runs at batch 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network with what it is calibrated and judged on."""

    name: str
    network: Network
    calibration: Dataset
    test: Dataset


@dataclass(frozen=True, slots=True)
class Cell:
    """One compressed network."""

    net: str
    method: str
    budget: str
    keep: float
    seed: int
    images: int
    params: float
    macs: float
    error: float
    accuracy: float
    loss: float | None
    picked: str
    solve_seconds: float
    table_seconds: float

    @property
    def key(self) -> str:
        """What it is stored under."""
        return f"{self.net} {self.method} {self.budget} {self.keep:g} {self.seed} {self.images}"


def cifar(name: str) -> Callable[[Path, int], Subject]:
    """A CIFAR-10 network of the data bundle; calibrated on training images, judged on test images."""

    def made(data: Path, images: int) -> Subject:
        network = load(data / "nets" / f"cifar10_{name}.onnx").network
        test = _images(data / "cifar10" / "cifar10_test.npz", images)
        train = _images(data / "cifar10" / "cifar10_train_first7k.npz", 2000)
        return Subject(name, network, train, test)

    return made


def _images(place: Path, count: int) -> Dataset:
    with np.load(place) as held:
        order = np.random.default_rng(SHUFFLE).permutation(len(held["x"]))[:count]
        x = held["x"][order].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        return Dataset(place.name, x, held["y"][order].astype(np.int64))


def trained(
    name: str, make: Callable[[Path, int], tuple[Network, Dataset, Dataset]]
) -> Callable[[Path, int], Subject]:
    """A network that this benchmark trains."""

    def made(data: Path, images: int) -> Subject:
        return Subject(name, *make(data, images))

    return made


SUBJECTS: dict[str, Callable[[Path, int], Subject]] = {
    "resnet20": cifar("resnet20"),
    "resnet56": cifar("resnet56"),
    "mnist": trained("mnist", mnist),
    "digits": trained("digits", digits),
}


def cells(
    subject: Subject, wanted: Sequence[tuple[str, str, int]], keeps: Sequence[float], store: Store
) -> Iterator[Cell]:
    """Every cell of a network, from the store where it is there."""
    images = len(subject.test)
    for method, budget, seed in wanted:
        known = {k: store.found(subject.name, (method, budget, seed), k, images) for k in keeps}
        config = CompressConfig(method=method, budget=budget, seed=seed)
        if any(cell is None for cell in known.values()):
            prepared = study(subject.network, config, subject.calibration)
            for keep in (k for k, cell in known.items() if cell is None):
                try:
                    made = at(prepared, keep)
                except CompressionError as error:
                    print(f"{subject.name} {method} {budget}: {error}", file=sys.stderr)
                    continue
                known[keep] = store.add(_cell(subject, made, (method, budget, seed)))
        yield from (cell for cell in known.values() if cell is not None)


def _cell(subject: Subject, made: Compressed, what: tuple[str, str, int]) -> Cell:
    method, budget, seed = what
    return Cell(
        subject.name, method, budget, made.target, seed, len(subject.test),
        params=made.after.params / made.before.params,
        macs=made.after.macs / made.before.macs,
        error=made.error,
        accuracy=100 * accuracy(outputs(made.onnx, subject.test.x), subject.test.y),
        loss=made.loss,
        picked=f"{made.method}, {made.finish}",
        solve_seconds=made.seconds.solve,
        table_seconds=made.seconds.tables,
    )  # fmt: skip


class Store:
    """Cells that were computed before, in one JSON file."""

    def __init__(self, place: Path | None) -> None:
        self._place = place
        self._cells: dict[str, Cell] = {}
        if place is not None and place.exists():
            found = [Cell(**row) for row in json.loads(place.read_text())]
            self._cells = {cell.key: cell for cell in found}

    def found(self, net: str, what: tuple[str, str, int], keep: float, images: int) -> Cell | None:
        """The cell of a method, budget and seed; None where it was not computed yet.

        Where the portfolio of the same seed picked and finished a method, its network is that method's own:
        the same samples, tables, splits and ways to finish. Seed 0 is computed all the same, for its times.
        """
        method, budget, seed = what
        cell = self._cells.get(f"{net} {method} {budget} {keep:g} {seed} {images}")
        picked = self._cells.get(f"{net} {PORTFOLIO} {budget} {keep:g} {seed} {images}")
        if cell is None and picked is not None and seed:
            name, finish = picked.picked.split(", ", 1)
            return replace(picked, method=method) if name == method and finish != AS_BUILT else None
        return cell

    def add(self, cell: Cell) -> Cell:
        """Keep a cell."""
        self._cells[cell.key] = cell
        if self._place is not None:
            rows = [asdict(other) for other in self._cells.values()]
            write_all({self._place: (json.dumps(rows, indent=1) + "\n").encode()})
        return cell


def tables(found: Sequence[Cell], before: dict[str, float]) -> Iterator[Table]:
    """Two tables a network and kind of budget: accuracies, and what else is known of each cell."""
    for net, budget in sorted({(cell.net, cell.budget) for cell in found}):
        part = [cell for cell in found if (cell.net, cell.budget) == (net, budget)]
        yield _accuracies(
            part, f"{net}: accuracy at equal {budget}, no retraining (before: {before[net]:.2f} %)"
        )
        yield _others(part, f"{net} at equal {budget}, seed 0")


def _keeps(part: Sequence[Cell]) -> list[float]:
    return sorted({cell.keep for cell in part}, reverse=True)


def _accuracies(part: Sequence[Cell], title: str) -> Table:
    shown = Table("method", *(f"{keep:g}" for keep in _keeps(part)), "area", title=title)
    for method in dict.fromkeys(cell.method for cell in part):
        rows = [[c.accuracy for c in part if (c.method, c.keep) == (method, keep)] for keep in _keeps(part)]
        area = f"{mean(mean(r) for r in rows):.1f}" if all(rows) else "-"
        shown.add_row(method, *(_spread(r) for r in rows), area)
    return shown


def _others(part: Sequence[Cell], title: str) -> Table:
    """Largest error by the method's own measure; kept parameters and steps at the smallest share."""
    errors = (f"error {keep:g}" for keep in _keeps(part))
    shown = Table("method", *errors, "params", "steps", "tables s", "solve s", title=title)
    for method in dict.fromkeys(cell.method for cell in part):
        own = {c.keep: c for c in part if c.method == method and c.seed == 0}
        if not own:
            continue
        last, slowest = own[min(own)], max(c.solve_seconds for c in own.values())
        told = [f"{own[keep].error:.3f}" if keep in own else "-" for keep in _keeps(part)]
        times = (f"{last.table_seconds:.1f}", f"{slowest:.2f}")
        shown.add_row(method, *told, f"{last.params:.3f}", f"{last.macs:.3f}", *times)
    return shown


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def speeds(subject: Subject, keeps: Sequence[float]) -> Table:
    """Measured time at batch 1 beside the original: budgets of parameters, and of time itself."""
    shown = Table(
        "budget",
        "keep",
        "params",
        "steps",
        "time / original",
        "accuracy",
        title=f"{subject.name}: ONNX Runtime, batch 1, one thread",
    )
    for budget in ("params", "macs", "latency"):
        prepared = study(
            subject.network, CompressConfig(method="whitened", budget=budget), subject.calibration
        )
        for keep in keeps:
            try:
                made = at(prepared, keep)
            except CompressionError as error:
                print(f"{budget}: {error}", file=sys.stderr)
                continue
            after, before = medians([in_runtime(made.network), in_runtime(subject.network)], ROUNDS)
            cell = _cell(subject, made, ("whitened", budget, 0))
            shown.add_row(
                budget,
                f"{keep:g}",
                f"{cell.params:.3f}",
                f"{cell.macs:.3f}",
                f"{after / before:.2f}",
                f"{cell.accuracy:.1f}",
            )
    return shown


def main() -> int:
    """Run the benchmark."""
    arguments = _arguments()
    keeps = QUICK_KEEPS if arguments.quick else tuple(float(k) for k in arguments.keep.split(","))
    names = arguments.net or (["digits"] if arguments.quick else list(SUBJECTS))
    methods = arguments.method or list(DEFAULT)
    kinds = ["params"] if arguments.quick else arguments.budget.split(",")
    store, console = Store(arguments.store), Console(width=max(170, Console().width))
    found, before = list[Cell](), dict[str, float]()
    with threadpool_limits(limits=1):
        for name in names:
            subject = SUBJECTS[name](arguments.data, arguments.images)
            before[name] = 100 * accuracy(outputs_of(subject.network, subject.test.x), subject.test.y)
            if arguments.latency:
                console.print(speeds(subject, keeps))
                continue
            wanted = [
                (m, kind, seed)
                for kind in kinds
                for m in methods
                for seed in range(arguments.seeds if m in RANDOM else 1)
            ]
            started = time.process_time()
            found += cells(subject, wanted, keeps, store)
            console.print(f"{name}: {time.process_time() - started:.0f} CPU seconds")
    for table in tables(found, before):
        console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cell) for cell in found], indent=2) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    here = Path(__file__).resolve().parents[2]
    parser.add_argument("--quick", action="store_true", help="digits, two shares, parameters only")
    parser.add_argument(
        "--net", action="append", choices=list(SUBJECTS), help="only this one; may be repeated"
    )
    parser.add_argument("--method", action="append", choices=[PORTFOLIO, *METHODS], help="may be repeated")
    parser.add_argument("--keep", default=",".join(f"{k:g}" for k in KEEPS), help="shares to keep")
    parser.add_argument("--budget", default="params,macs", help="kinds of budget")
    parser.add_argument("--images", type=int, default=2000, help="test images")
    parser.add_argument("--seeds", type=int, default=1, help="of methods that draw random numbers")
    parser.add_argument("--latency", action="store_true", help="measured time instead of curves")
    parser.add_argument("--store", type=Path, help="JSON file of cells to go on from")
    parser.add_argument("--json", type=Path, help="write all cells there")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", here / "shared" / "data"))
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
