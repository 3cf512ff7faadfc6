"""DeepShift trained as published, beside float32 with the same optimisers and beside our conversion.

    python benchmarks/shift_accuracy.py [--quick] [--net fc,conv,resnet20] [--bits 5,4,3,2] [--images N]
        [--epochs N] [--json FILE] [--data FOLDER]

`fc` (784-512-512-10, dropout .2) and `conv` (20@5x5-50@5x5-500-10) on the first N training images of MNIST,
judged on all 10,000 test images. Q trains with SGD, PS with RAdam, every layer shifted, first and last
included. The published run has 60,000 images, 10 epochs and SGD without momentum; here are fewer steps, and
momentum .9 makes up for them. Because the published float32 baseline is SGD only, float32 with RAdam is a
control: what PS gains over SGD it may owe to its optimiser. `convert` is to_shift(method="ours") on 128
images, nothing trained. `resnet20` is the CIFAR-10 network of the data bundle, one epoch of fine-tuning on
images that it was trained on, judged on 1,000 test images. Seconds are of CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from small_classifiers import mnist_data, mnist_module
from torch import nn

from sutura.compression.figures import accuracy, outputs_of
from sutura.dataset import Dataset
from sutura.errors import SuturaError
from sutura.network.graph import Network
from sutura.network.read import load
from sutura.network.torch_read import from_torch
from sutura.network.torch_write import to_module
from sutura.shift.convert import ShiftConfig, to_shift
from sutura.shift.finetune import FineTuneConfig, fine_tuned, radam
from sutura.shift.parametrisation import plain
from sutura.training.config import TrainConfig
from sutura.training.train import train

PUBLISHED = {
    ("fc", "scratch"): {"sgd": 96.92, "q": 97.03, "ps": 98.26},
    ("conv", "scratch"): {"sgd": 98.75, "q": 98.81, "ps": 99.12},
    ("fc", "pretrained"): {"sgd": 96.92, "q": 97.85, "ps": 98.26},
    ("conv", "pretrained"): {"sgd": 98.75, "q": 99.15, "ps": 99.16},
}
"""Top-1 at 5 bits, in per cent."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One trained network; `accuracy` in per cent, None where training diverged."""

    net: str
    start: str
    method: str
    bits: int
    accuracy: float | None
    seconds: float


def fc_module(seed: int) -> nn.Module:
    """784-512-512-10 with dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 10),
    )  # fmt: skip


def sgd(rate: float, said: argparse.Namespace) -> TrainConfig:
    return TrainConfig(
        epochs=said.epochs, batch=64, rate=rate, optimiser="sgd", momentum=0.9, decay=1e-4, schedule="cosine"
    )


def with_radam(rate: float, said: argparse.Namespace) -> TrainConfig:
    return replace(sgd(rate, said), optimiser=radam)


TRAINING = {"sgd": sgd, "q": sgd, "radam": with_radam, "ps": with_radam}
RATES = {
    ("sgd", "scratch"): 0.01, ("q", "scratch"): 0.01, ("radam", "scratch"): 1e-3, ("ps", "scratch"): 0.01,
    ("sgd", "pretrained"): 1e-3, ("q", "pretrained"): 1e-3,
    ("radam", "pretrained"): 1e-3, ("ps", "pretrained"): 1e-3,
}  # fmt: skip
"""The published rates; 1e-3 for RAdam on float32, whose weights are no exponents."""


def timed(net: str, start: str, method: str, bits: int, run: Callable[[], float]) -> Cell:
    began = time.process_time()
    try:
        share = 100 * run()
    except SuturaError:
        share = None
    cell = Cell(net, start, method, bits, share, time.process_time() - began)
    print(cell, flush=True)
    return cell


def judged(module: nn.Module, test: Dataset) -> float:
    """Accuracy in PyTorch, in eval mode."""
    with torch.no_grad():
        parts = [module(torch.tensor(test.x[at : at + 500])) for at in range(0, len(test), 500)]
    return accuracy(torch.cat(parts).numpy(), test.y)


def mnist(net: str, said: argparse.Namespace) -> Iterator[Cell]:
    """Float32 controls, then Q and PS from scratch and from the SGD network, then conversion alone."""
    learned, test = mnist_data(said.data, 10_000)
    learned = Dataset("mnist", learned.x[: said.images], learned.y[: said.images])
    fresh = {"fc": fc_module, "conv": mnist_module}[net](0)
    made = dict[str, nn.Module]()

    def control(start: str, method: str) -> Callable[[], float]:
        def run() -> float:
            begin = fresh if start == "scratch" else made["sgd"]
            module = train(begin, learned, TRAINING[method](RATES[method, start], said)).module
            made.setdefault(method, module)
            return judged(module, test)

        return run

    def shifted(start: str, method: str, bits: int) -> Callable[[], float]:
        def run() -> float:
            config = FineTuneConfig(
                method=method, bits=bits, scratch=start == "scratch",
                training=TRAINING[method](RATES[method, start], said),
            )  # fmt: skip
            begin = fresh if start == "scratch" else made["sgd"]
            return judged(plain(fine_tuned(begin, learned, config).module), test)

        return run

    for start in ("scratch", "pretrained"):
        for method in ("sgd", "radam"):
            yield timed(net, start, method, 32, control(start, method))
        for bits in said.bits:
            for method in ("q", "ps"):
                yield timed(net, start, method, bits, shifted(start, method, bits))
    network = from_torch(made["sgd"], torch.tensor(test.x[:1]))
    yield from conversions(net, network, learned, test, said)


def conversions(
    net: str, network: Network, learned: Dataset, test: Dataset, said: argparse.Namespace
) -> Iterator[Cell]:
    for bits in said.bits:

        def run(bits: int = bits) -> float:
            moved = to_shift(network, ShiftConfig(bits=bits), data=learned)
            return accuracy(outputs_of(moved.network, test.x), test.y)

        yield timed(net, "pretrained", "convert", bits, run)


def resnet20(_: str, said: argparse.Namespace) -> Iterator[Cell]:
    """One epoch from the stored network; then conversion alone."""
    network = load(said.data / "nets" / "cifar10_resnet20.onnx").network
    learned = images(said.data / "cifar10" / "cifar10_train_first7k.npz", said.resnet_images)
    test = images(said.data / "cifar10" / "cifar10_test.npz", 1000)
    module = to_module(network)
    yield timed("resnet20", "pretrained", "float32", 32, lambda: judged(module, test))
    short = argparse.Namespace(epochs=1)
    for bits in said.bits:
        for method in ("q", "ps"):

            def run(method: str = method, bits: int = bits) -> float:
                training = replace(TRAINING[method](1e-3, short), batch=128)
                config = FineTuneConfig(method=method, bits=bits, training=training)
                return judged(plain(fine_tuned(module, learned, config).module), test)

            yield timed("resnet20", "pretrained", method, bits, run)
    yield from conversions("resnet20", network, learned, test, said)


def images(place: Path, count: int) -> Dataset:
    with np.load(place) as held:
        order = np.random.default_rng(2026).permutation(len(held["x"]))[:count]
        x = held["x"][order].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        return Dataset(place.name, x, held["y"][order].astype(np.int64))


def table(cells: list[Cell], net: str, bits: list[int]) -> Table:
    """Accuracies by method and width; published gaps to float32 SGD in the last column."""
    widths = [str(b) for b in bits]
    shown = Table("start", "method", "float32", *widths, "gap at 5", "published gap", "CPU s", title=net)
    for start in ("scratch", "pretrained"):
        mine = [c for c in cells if (c.net, c.start) == (net, start)]
        whole = {
            c.method: c.accuracy for c in cells if c.net == net and c.bits == 32 and c.start == "scratch"
        }
        base = whole.get("sgd") or next((c.accuracy for c in mine if c.method == "float32"), None)
        for method in dict.fromkeys(c.method for c in mine):
            row = {c.bits: c for c in mine if c.method == method}
            published = PUBLISHED.get((net, start), {})
            gap = (
                f"{published[method] - published['sgd']:+.2f}" if method in ("q", "ps") and published else ""
            )
            own = row[5].accuracy - base if 5 in row and base and row[5].accuracy is not None else None
            shown.add_row(
                start, method, *(percent(row.get(b)) for b in (32, *bits)),
                "" if own is None else f"{own:+.2f}", gap, f"{sum(c.seconds for c in row.values()):.0f}",
            )  # fmt: skip
    return shown


def percent(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return "diverged" if cell.accuracy is None else f"{cell.accuracy:.2f}"


NETS: dict[str, Callable[[str, argparse.Namespace], Iterator[Cell]]] = {
    "fc": mnist,
    "conv": mnist,
    "resnet20": resnet20,
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--quick", action="store_true", help="fc only, 5 and 3 bits, 2,000 images, 1 epoch")
    asked.add_argument("--net", default="fc,conv,resnet20")
    asked.add_argument("--bits", default="5,4,3,2")
    asked.add_argument("--images", type=int, default=10_000)
    asked.add_argument("--resnet-images", type=int, default=1500)
    asked.add_argument("--epochs", type=int, default=4)
    asked.add_argument("--json", type=Path)
    home = Path(__file__).resolve().parent.parent.parent
    asked.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", home / "shared" / "data"))
    )
    said = asked.parse_args()
    if said.quick:
        said.net, said.bits, said.images, said.epochs = "fc", "5,3", 2000, 1
    said.bits = [int(part) for part in said.bits.split(",")]
    torch.set_num_threads(1)
    cells = [cell for net in said.net.split(",") for cell in NETS[net](net, said)]
    for net in said.net.split(","):
        Console(width=150).print(table(cells, net, said.bits))
    if said.json:
        said.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=2) + "\n")


if __name__ == "__main__":
    main()
