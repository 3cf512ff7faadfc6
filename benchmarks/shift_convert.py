"""Weights to signed powers of two without training: DeepShift's methods and ours, side by side.

    python benchmarks/shift_convert.py [--quick] [--net resnet20] [--bits 5,4,3,2] [--images N]
        [--samples N] [--seeds N] [--json FILE] [--data FOLDER]

Accuracy of a CIFAR-10 network of the data bundle on N test images (the first of a fixed shuffle) in ONNX
Runtime, all layers converted, first and last included. `q` and `ps` are DeepShift from pretrained, as
published; `scale` is ours without data; `ours` adds error feedback and corrected statistics from training
images; `ours, 2^k` restricts the scales to powers of two. Bits are those of the packed file, scales and
header included.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from sutura.dataset import Dataset
from sutura.network.graph import Network
from sutura.network.predictions import accuracy, outputs, outputs_of
from sutura.network.read import load
from sutura.shift.convert import ShiftConfig, to_shift

SHUFFLE = 2026
"""Seed of the order in which images are taken."""

FORMS = {  # title -> settings, whether calibrated
    "q": ({"method": "q"}, False),
    "ps": ({"method": "ps"}, False),
    "scale": ({}, False),
    "ours": ({}, True),
    "ours, 2^k": ({"scale": "power"}, True),
}


def images(place: Path, count: int) -> Dataset:
    with np.load(place) as held:
        order = np.random.default_rng(SHUFFLE).permutation(len(held["x"]))[:count]
        x = held["x"][order].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        return Dataset(place.name, x, held["y"][order].astype(np.int64))


def cell(net: Network, form: str, bits: int, said: argparse.Namespace, train: Dataset, test: Dataset) -> dict:
    """One method and width; those with data once a seed, which draws the samples."""
    settings, calibrated = FORMS[form]
    shares, seconds, size = [], [], 0.0
    for seed in range(said.seeds if calibrated else 1):
        config = ShiftConfig(bits=bits, seed=seed, samples=said.samples, **settings)
        started = time.process_time()
        made = to_shift(net, config, data=train if calibrated else None)
        seconds.append(time.process_time() - started)
        shares.append(accuracy(outputs(made.onnx, test.x), test.y))
        size = 8 * len(made.packed()) / sum(layer.values.size for layer in made.layers)
    return {"form": form, "bits": bits, "accuracy": shares, "seconds": seconds, "bits_per_weight": size}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--quick", action="store_true", help="300 test images, 4 and 3 bits, 64 samples")
    asked.add_argument("--net", default="resnet20")
    asked.add_argument("--bits", default="5,4,3,2")
    asked.add_argument("--images", type=int, default=1000)
    asked.add_argument("--samples", type=int, default=128)
    asked.add_argument("--seeds", type=int, default=1)
    asked.add_argument("--json", type=Path)
    home = Path(__file__).resolve().parent.parent.parent
    asked.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", home / "shared" / "data"))
    )
    said = asked.parse_args()
    if said.quick:
        said.bits, said.images, said.samples = "4,3", 300, 64
    net = load(said.data / "nets" / f"cifar10_{said.net}.onnx").network
    test = images(said.data / "cifar10" / "cifar10_test.npz", said.images)
    train = images(said.data / "cifar10" / "cifar10_train_first7k.npz", 2000)
    widths = [int(part) for part in said.bits.split(",")]
    with threadpool_limits(1):
        before = accuracy(outputs_of(net, test.x), test.y)
        cells = [cell(net, form, bits, said, train, test) for bits in widths for form in FORMS]
    error = 100 * math.sqrt(before * (1 - before) / said.images)
    title = f"{said.net}: {before:.2%} before, {said.images} images, standard error about {error:.1f} points"
    table = Table("bits", *FORMS, "packed bits, ps / ours", title=title)
    for bits in widths:
        row = {c["form"]: c for c in cells if c["bits"] == bits}
        shown = [", ".join(f"{100 * share:.1f}" for share in row[form]["accuracy"]) for form in FORMS]
        sizes = f"{row['ps']['bits_per_weight']:.2f} / {row['ours']['bits_per_weight']:.2f}"
        table.add_row(str(bits), *shown, sizes)
    Console(width=150).print(table)
    spent = [s for c in cells if c["form"] == "ours" for s in c["seconds"]]
    Console().print(f"ours took {min(spent):.1f} to {max(spent):.1f} CPU seconds")
    if said.json:
        said.json.write_text(json.dumps({"net": said.net, "before": before, "cells": cells}, indent=2) + "\n")


if __name__ == "__main__":
    main()
