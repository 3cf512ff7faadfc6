"""Local robustness of many images at once, repaired in one call.

    python benchmarks/repair_images.py [--quick] [--json FILE [--resume]] [--networks NAME,...] [--images N]
                                       [--epochs N] [--boxes N] [--data FOLDER]

Networks are trained here (Adam 1e-3, batches of 64): fully connected 3, 5 and 7 x 100 on MNIST and on the
7,000 images of CIFAR-10 that are at hand, one convolutional and one residual network on MNIST. For each, the
first test images that are classified rightly and have an adversarial neighbour within the radius (found by
projected gradient descent, replayed in ONNX Runtime) get one robustness property each; all are repaired in
one call. Accuracy is that on the 10,000 test images.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from repair_rows import keep, markdown, resumed, table
from rich.console import Console
from torch import nn

import sutura
from sutura.gates.evaluate import labelled, same_bits, uniform, violating
from sutura.gates.mend import RepairConfig
from sutura.gates.problem import problem
from sutura.gates.repair import mended
from sutura.gates.speed import speed
from sutura.network.onnx_write import write_onnx
from sutura.network.run import open_session
from sutura.verdict.replay import Runner, runner

RATE, BATCH = 1e-3, 64


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Labelled images with values in 0..1, channels first, the radius of the balls around them, and epochs of
    training."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    radius: str
    epochs: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image."""
        return self.x_test.shape[1:]


def mnist(data: Path) -> Images:
    """60,000 and 10,000 images."""
    with np.load(data / "mnist" / "mnist.npz") as a:
        x = [unit(a[k][:, None]) for k in ("x_train", "x_test")]
        y = [a[k].astype(np.int64) for k in ("y_train", "y_test")]
    return Images(x[0], y[0], x[1], y[1], "0.03", 2)


def cifar(data: Path) -> Images:
    """The first 7,000 of the training images and all 10,000 of the test images."""
    found: list[np.ndarray] = []
    for name in ("cifar10_train_first7k", "cifar10_test"):
        with np.load(data / "cifar10" / f"{name}.npz") as a:
            found += [unit(a["x"].transpose(0, 3, 1, 2)), a["y"].astype(np.int64)]
    return Images(*found, "0.0012", 20)


def unit(pixels: np.ndarray) -> np.ndarray:
    """Bytes to numbers from 0 to 1."""
    return np.ascontiguousarray(pixels).astype(np.float32) / np.float32(255)


class Residual(nn.Module):
    """One block with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """relu(x + inner(x))."""
        return torch.relu(x + self.inner(x))


def dense(inputs: int, layers: int) -> nn.Module:
    """`layers` hidden layers of 100 neurons."""
    sizes = [inputs, *[100] * layers, 10]
    parts: list[nn.Module] = [nn.Flatten()]
    for a, b in itertools.pairwise(sizes):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def conv() -> nn.Module:
    """Two strided convolutions and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def residual() -> nn.Module:
    """A strided convolution, one residual block, a strided convolution, a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, 4), nn.ReLU(), Residual(8), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


DATA = {"mnist": mnist, "cifar": cifar}

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    **{f"mnist fc {n}x100": (lambda n=n: dense(784, n)) for n in (3, 5, 7)},
    **{f"cifar fc {n}x100": (lambda n=n: dense(3072, n)) for n in (3, 5, 7)},
    "mnist conv": conv,
    "mnist residual": residual,
}
"""Data set, network -> its make."""


@dataclass(frozen=True, slots=True)
class Row:
    """One network: images repaired, and what that cost and changed; shares lie in 0..1."""

    network: str
    images: int
    certified: bool
    cpu_seconds: float
    search_seconds: float
    check_seconds: float
    violating_before: float
    violating_after: float
    attacked_before: int
    attacked_after: int
    accuracy_before: float
    accuracy_after: float
    identical_test: float
    identical_right: float
    gates: int
    cells: int
    onnx_bytes: int
    onnx_bytes_before: int
    batch_1_inside: float
    batch_1: float
    batch_1024: float
    note: str


def trained(make: Callable[[], nn.Module], x: torch.Tensor, y: torch.Tensor, epochs: int) -> nn.Module:
    """A network after so many epochs."""
    torch.manual_seed(0)
    model = make()
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for rows in order.split(BATCH):
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval()


def adversarial(model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float) -> torch.Tensor:
    """Where projected gradient ascent on the loss ends, from each image."""
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    near = x.clone()
    for _ in range(20):
        near.requires_grad_(True)
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(model(near), y, reduction="sum"), near)
        near = (near.detach() + eps / 5 * slope.sign()).clamp(low, high)
    return near.detach()


def measure(name: str, data: Path, arguments: argparse.Namespace) -> Row:
    """Train, find violated images, repair all at once, compare."""
    images = DATA[name.split()[0]](data)
    many = arguments.training
    train = torch.from_numpy(images.x_train[:many]), torch.from_numpy(images.y_train[:many])
    model = trained(NETWORKS[name], *train, arguments.epochs or images.epochs)
    loaded = sutura.load(model, example=torch.zeros(1, *images.shape))
    original = write_onnx(loaded.network)
    was = runner(open_session(original))
    chosen, near = violated(model, was, images, arguments.images)
    flat = images.x_test.reshape(len(images.x_test), -1)
    properties = [
        sutura.robustness(flat[i], images.radius, int(images.y_test[i]), classes=10, name=f"image{i}")
        for i in chosen
    ]
    started = time.process_time()
    fixed = mended(problem(loaded, properties), RepairConfig(boxes=arguments.boxes))
    seconds = time.process_time() - started
    session = open_session(fixed.onnx, gated=True)
    now = runner(session)
    hulls = [case.box.float32_hull() for p in properties for case in p.cases]
    inside = np.concatenate([uniform(*hull, 50, at) for at, hull in enumerate(hulls)])
    y_was, y_now = was(inside), now(inside)
    wrong = broken(properties, inside, y_was, 50)
    test = labelled((was, now), flat, images.y_test)
    sessions = open_session(original), session
    return Row(
        name,
        len(chosen),
        fixed.certified,
        seconds,
        fixed.search_seconds,
        fixed.check_seconds,
        float(wrong.mean()),
        float(broken(properties, inside, y_now, 50).mean()),
        int(broken(properties, near, was(near), 1).sum()),
        int(broken(properties, near, now(near), 1).sum()),
        test.accuracy_before,
        test.accuracy_after,
        test.identical,
        float(same_bits(y_was, y_now)[~wrong].mean()),
        fixed.regions.rows - 1,
        fixed.regions.output_gated,
        len(fixed.onnx),
        len(original),
        speed(sessions, inside[:1]).ratio,
        speed(sessions, flat[-1:]).ratio,
        speed(sessions, flat[:1024]).ratio,
        fixed.note,
    )


def violated(model: nn.Module, was: Runner, images: Images, most: int) -> tuple[list[int], np.ndarray]:
    """The first images that are right and have an adversarial neighbour, and these neighbours, flat."""
    x, y, eps = images.x_test, images.y_test, float(images.radius) * 0.999
    found: list[int] = []
    points: list[np.ndarray] = []
    for start in range(0, len(x), 500):
        part, label = x[start : start + 500], y[start : start + 500]
        near = adversarial(model, torch.from_numpy(part), torch.from_numpy(label), eps).numpy()
        right = was(part.reshape(len(part), -1)).argmax(axis=1) == label
        flipped = was(near.reshape(len(part), -1)).argmax(axis=1) != label
        for i in np.flatnonzero(right & flipped)[: most - len(found)]:
            found.append(start + int(i))
            points.append(near[i].reshape(-1))
        if len(found) == most:
            break
    return found, np.stack(points)


def broken(properties: Sequence[Any], x: np.ndarray, y: np.ndarray, each: int) -> np.ndarray:
    """Which samples violate the property of the image that they were drawn around."""
    parts = [slice(at * each, (at + 1) * each) for at in range(len(properties))]
    return np.concatenate(
        [violating([p], x[part], y[part]) for p, part in zip(properties, parts, strict=True)]
    )


def rows(arguments: argparse.Namespace, done: Sequence[Row]) -> Iterator[Row]:
    """The rows that are not done, each as it comes."""
    known = {row.network for row in done}
    for name in (n for n in arguments.networks.split(",") if n not in known):
        yield measure(name, arguments.data, arguments)


COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "network": lambda r: r.network,
    "images": lambda r: f"{r.images:,}",
    "certified": lambda r: "yes" if r.certified else "no",
    "CPU s": lambda r: f"{r.cpu_seconds:.1f}",
    "violating": lambda r: f"{r.violating_before:.2%}",
    "after": lambda r: f"{r.violating_after:.2%}",
    "attacked": lambda r: f"{r.attacked_before:,}",
    "after ": lambda r: f"{r.attacked_after:,}",
    "test accuracy": lambda r: f"{r.accuracy_before:.2%}",
    "after  ": lambda r: f"{r.accuracy_after:.2%}",
    "test same bits": lambda r: f"{r.identical_test:.2%}",
    "right same bits": lambda r: f"{r.identical_right:.2%}",
    "gates": lambda r: f"{r.gates:,}",
    "cells": lambda r: f"{r.cells:,}",
    "kB": lambda r: f"{r.onnx_bytes / 1000:,.0f}",
    "before": lambda r: f"{r.onnx_bytes_before / 1000:,.0f}",
    "x1 in": lambda r: f"{r.batch_1_inside:.2f}",
    "x1 out": lambda r: f"{r.batch_1:.2f}",
    "x1024": lambda r: f"{r.batch_1024:.2f}",
}
"""Heading -> text of a row."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="one network, 8 images, 4,000 images of training"
    )
    parser.add_argument("--json", type=Path, help="write the rows here, as they come")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the file has")
    parser.add_argument("--markdown", action="store_true", help="a table for RESULTS.md")
    parser.add_argument("--networks", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--images", type=int, help="violated images a network (default 100)")
    parser.add_argument("--epochs", type=int, help="of training (default: 2 on MNIST, 20 on CIFAR-10)")
    parser.add_argument("--training", type=int, help="training images (default: all)")
    parser.add_argument("--boxes", type=int, default=0, help="boxes to bound (default 0: all are gated)")
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", default)))
    arguments = parser.parse_args()
    arguments.networks = arguments.networks or ("mnist fc 3x100" if arguments.quick else ",".join(NETWORKS))
    arguments.images = arguments.images or (8 if arguments.quick else 100)
    arguments.training = arguments.training or (4_000 if arguments.quick else 60_000)
    console = Console(width=240)
    found = resumed(arguments.json, Row) if arguments.resume else []
    for row in rows(arguments, found):
        found.append(row)
        console.print(f"{row.network}: {row.cpu_seconds:.1f} CPU s {row.note}")
        keep(arguments.json, found)
    if arguments.markdown:
        print(markdown(COLUMNS, found))
    else:
        console.print(table("networks for images", COLUMNS, found, ("network",)))


if __name__ == "__main__":
    main()
