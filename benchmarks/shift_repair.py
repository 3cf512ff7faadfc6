"""What shifting costs in proofs: networks verified and repaired before and after, with accepted certificates.

    python benchmarks/shift_repair.py [--quick] [--part acasxu|mnist] [--images N] [--boxes N]
        [--timeout SECONDS] [--json FILE] [--data FOLDER]

ACAS Xu networks at 5 bits, `ps` and `ours` (calibrated on uniform samples of the box of property 1): each
case is verified and repaired, original and shifted with the same budget of boxes. MNIST: the fully
connected 256x2 network of the data bundle; compressed by ALDS to half of its parameters; and that shifted
to 4 bits: local robustness at 0.02 of the first test images that all three classify rightly, repaired in
one call. Shifted networks are read from the int8 ONNX files that `sutura shift --format qdq` writes.
`gated` counts cells of the proof that got a gate, `proved` is the share of the boxes that needs none;
changed is the share of 10,000 uniform samples of the boxes (MNIST: test images) whose decision is not the
original's before any repair.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

import sutura
from sutura.compression.figures import outputs_of
from sutura.dataset import Dataset
from sutura.gates.evaluate import uniform
from sutura.gates.mend import RepairConfig
from sutura.property.spec import Property
from sutura.shift.convert import ShiftConfig, to_shift
from sutura.shift.qdq import quantised

RADIUS = 0.02

CASES = (("N1,1", 3), ("N2,1", 2), ("N2,9", 8), ("N3,8", 2))
"""Property 3 holds on N1,1; the others are violated."""


@dataclass(frozen=True, slots=True)
class Row:
    """One network verified and repaired; `verdicts` counts proved, violated and unknown properties."""

    case: str
    network: str
    changed: float | None
    verdicts: dict[str, int]
    gated: int
    cells: int
    proved_share: float
    certified: bool
    onnx_bytes: int
    cpu_seconds: float


def judged(
    case: str, name: str, loaded: sutura.Loaded, properties: Sequence[Property], said: argparse.Namespace
) -> Row:
    started = time.process_time()
    verdicts = dict[str, int]()
    for prop in properties:
        result = sutura.verify(loaded, prop, sutura.VerifyConfig(timeout=said.timeout, workers=1))
        word = type(result.verdict).__name__.lower()
        verdicts[word] = verdicts.get(word, 0) + 1
    fixed = sutura.repair(loaded, properties, RepairConfig(boxes=said.boxes, workers=1))
    held = fixed.regions
    row = Row(
        case, name, None, verdicts, held.output_gated, held.output_gated + held.proved, held.proved_share,
        fixed.certified, len(fixed.onnx), time.process_time() - started,
    )  # fmt: skip
    print(row, flush=True)
    return row


def acasxu(said: argparse.Namespace) -> Iterator[Row]:
    for net, number in CASES[1:2] if said.quick else CASES:
        place = said.data / "acasxu" / "onnx" / f"ACASXU_run2a_{net[1:].replace(',', '_')}_batch_2000.onnx"
        loaded = sutura.load(place)
        properties = [sutura.read_property(said.data / "acasxu" / "vnnlib" / f"prop_{number}.vnnlib")]
        wide = sutura.read_property(said.data / "acasxu" / "vnnlib" / "prop_1.vnnlib")
        x = within([wide], 2000).reshape(-1, *loaded.network.input_shape)
        seen = within(properties, 10_000).reshape(-1, *loaded.network.input_shape)
        was = outputs_of(loaded.network, seen).argmin(axis=1)
        yield judged(f"{net} p{number}", "original", loaded, properties, said)
        for method in ("ps", "ours"):
            made = to_shift(loaded, ShiftConfig(method=method, bits=5), data=Dataset("boxes", x, None))
            now = outputs_of(made.network, seen).argmin(axis=1)
            again = sutura.load(quantised(made).onnx)
            row = judged(f"{net} p{number}", f"5 bits, {method}", again, properties, said)
            yield with_change(row, float((now != was).mean()))


def within(properties: Sequence[Property], count: int) -> np.ndarray:
    """Uniform samples of the properties' boxes."""
    boxes = [case.box.float32_hull() for prop in properties for case in prop.cases]
    return np.concatenate([uniform(*hull, count // len(boxes), at) for at, hull in enumerate(boxes)])


def with_change(row: Row, changed: float) -> Row:
    return Row(**{**asdict(row), "changed": changed})


def mnist(said: argparse.Namespace) -> Iterator[Row]:
    loaded = sutura.load(said.data / "vnncomp" / "mnist_fc" / "onnx" / "mnist-net_256x2.onnx")
    with np.load(said.data / "mnist" / "mnist.npz") as held:
        shape = loaded.network.input_shape
        learned = (held["x_train"][:2000] / 255).astype(np.float32).reshape(-1, *shape)
        x = (held["x_test"] / 255).astype(np.float32).reshape(-1, *shape)
        y = held["y_test"]
    data = Dataset("mnist", learned, None)
    small = sutura.compress(loaded, sutura.CompressConfig(target=0.5, method="alds"), data=data)
    made = to_shift(small.network, ShiftConfig(bits=4), data=data)
    subjects = {
        "original": loaded,
        "ALDS .5": sutura.load(small.onnx),
        "ALDS .5, 4 bits": sutura.load(quantised(made).onnx),
    }
    said_by = {name: outputs_of(one.network, x).argmax(axis=1) for name, one in subjects.items()}
    right = np.flatnonzero(np.all([labels == y for labels in said_by.values()], axis=0))[: said.images]
    properties = [
        sutura.robustness(
            [float(v) for v in x[i].reshape(-1)], RADIUS, int(y[i]), classes=10, name=f"image_{i}"
        )
        for i in right
    ]
    for name, one in subjects.items():
        row = judged(f"MNIST, {len(right)} images", name, one, properties, said)
        yield with_change(row, float((said_by[name] != said_by["original"]).mean()))


PARTS = {"acasxu": acasxu, "mnist": mnist}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--quick", action="store_true", help="N2,1 property 2 only, 400 boxes, 3 images")
    asked.add_argument("--part", choices=["acasxu", "mnist"], help="one of both only")
    asked.add_argument("--images", type=int, default=20)
    asked.add_argument("--boxes", type=int, default=2000, help="to bound in a repair")
    asked.add_argument("--timeout", type=float, default=30.0, help="wall seconds for each verification")
    asked.add_argument("--json", type=Path)
    home = Path(__file__).resolve().parent.parent.parent
    asked.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", home / "shared" / "data"))
    )
    said = asked.parse_args()
    if said.quick:
        said.images, said.boxes, said.timeout = 3, 400, 5.0
    found = [row for name, run in PARTS.items() if said.part in (None, name) for row in run(said)]
    table = Table(
        "case", "network", "changed", "verdict", "gated", "cells", "proved", "certified", "kB", "CPU s"
    )
    for row in found:
        verdicts = ", ".join(f"{count} {word}" for word, count in row.verdicts.items())
        table.add_row(
            row.case, row.network, "-" if row.changed is None else f"{row.changed:.2%}", verdicts,
            str(row.gated), str(row.cells), f"{row.proved_share:.1%}", "yes" if row.certified else "no",
            f"{row.onnx_bytes / 1000:.0f}", f"{row.cpu_seconds:.1f}",
        )  # fmt: skip
    Console(width=150).print(table)
    if said.json:
        said.json.write_text(json.dumps([asdict(row) for row in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
