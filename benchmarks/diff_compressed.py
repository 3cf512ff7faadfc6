"""How far a compressed network can be from the original, certified: differential bounds beside separate ones.

    python benchmarks/diff_compressed.py [--quick] [--data FOLDER] [--boxes N] [--json FILE]

Thirteen compressed networks (of ACAS Xu, of mnist_fc, and of one trained here on scikit-learn's digits):
ALDS, weights rounded to k bits, powers of two, neurons merged. `certified` is sutura.diff's bound of the
largest difference of any output on the region, `separate` what follows from bounding both networks' outputs
over the same boxes and subtracting, `seen` the largest difference found: in ONNX Runtime by diff's own
samples and attack, or by 20,000 further samples (half of them corners) made here. `ratio` is separate /
certified, `possible` the largest that any sound bound can have, separate / seen. A bound below what is seen
would be a bug: the benchmark then ends with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from sutura.compression.compress import compress
from sutura.compression.study import CompressConfig
from sutura.condensation.merge import merge, plan
from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded, load
from sutura.network.run import open_session, run
from sutura.property.build import argmax_in, box
from sutura.property.read import read_property
from sutura.property.spec import Property
from sutura.shift.convert import ShiftConfig, to_shift
from sutura.verdict.difference import DiffConfig, Difference, diff

SAMPLES = 20_000


@dataclass(frozen=True)
class Row:
    """One pair of networks, as the table shows it."""

    network: str
    region: str
    change: str
    boxes: int
    certified: float
    separate: float
    seen: float
    alike: float
    cpu: float

    @property
    def ratio(self) -> float:
        return self.separate / self.certified

    @property
    def possible(self) -> float:
        """No sound bound has a larger ratio."""
        return self.separate / self.seen


Change = Callable[[Network], Network]


def alds(share: float) -> Change:
    return lambda network: compress(network, CompressConfig(share, method="alds")).network


def rounded(bits: int) -> Change:
    """Weights of dense layers to the nearest of 2^bits - 1 even steps, symmetric, one scale an output."""

    def change(network: Network) -> Network:
        return replace(network, nodes=tuple(_rounded(node, bits) for node in network.nodes))

    return change


def _rounded(node: Node, bits: int) -> Node:
    match node.op:
        case ops.Gemm(weight=w, transposed=rows):
            return replace(node, op=replace(node.op, weight=_steps(w, bits, 1 if rows else 0)))
        case ops.MatMul(weight=w):
            return replace(node, op=replace(node.op, weight=_steps(w, bits, 0)))
        case _:
            return node


def _steps(weight: np.ndarray, bits: int, axis: int) -> np.ndarray:
    step = abs(weight).max(axis=axis, keepdims=True) / (2 ** (bits - 1) - 1)
    step[step == 0] = 1.0
    return (np.round(weight / step) * step).astype(np.float32)


def shifted(bits: int) -> Change:
    return lambda network: to_shift(network, ShiftConfig(bits=bits)).network


def merged(share: float) -> Change:
    def change(network: Network) -> Network:
        planned = plan(network)
        return merge(planned, max(planned.least, round(share * planned.neurons))).network

    return change


CHANGES: dict[str, Change] = {
    "ALDS, 90 % kept": alds(0.9),
    "ALDS, 50 % kept": alds(0.5),
    "12 bits": rounded(12),
    "10 bits": rounded(10),
    "8 bits": rounded(8),
    "powers of two, 5 bits": shifted(5),
    "merged to 97 %": merged(0.97),
}

PAIRS = (  # network, region (a property, or a radius around an image), change; the first three are --quick
    ("acasxu 3_3", "prop_4", "10 bits"),
    ("digits", "0.03", "ALDS, 90 % kept"),
    ("mnist 256x2", "0.01", "8 bits"),
    ("acasxu 1_1", "prop_3", "12 bits"),
    ("acasxu 2_3", "prop_1", "10 bits"),
    ("acasxu 4_5", "prop_3", "8 bits"),
    ("acasxu 5_7", "prop_4", "powers of two, 5 bits"),
    ("acasxu 3_3", "prop_4", "merged to 97 %"),
    ("mnist 256x2", "0.01", "ALDS, 90 % kept"),
    ("mnist 256x4", "0.005", "ALDS, 50 % kept"),
    ("mnist 256x4", "0.005", "merged to 97 %"),
    ("mnist 256x2", "0.01", "powers of two, 5 bits"),
    ("digits", "0.03", "powers of two, 5 bits"),
)
QUICK = 3


def digits() -> tuple[Loaded, Property]:
    """A ReLU network of 64, 100 and 10 units, and a box of 0.03 around a test image."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    from sutura.dataset import Dataset
    from sutura.training.config import TrainConfig
    from sutura.training.train import train

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16.0).astype(np.float32), y[order].astype(np.int64)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    config = TrainConfig(epochs=60, batch=64, rate=1e-3)
    net = train(module, Dataset("digits", x[:1200], y[:1200]), config).module
    image = x[1200]
    region = box([float(v - 0.03) for v in image], [float(v + 0.03) for v in image])
    return load(net, example=torch.tensor(x[:1])), argmax_in(region, [int(y[1200])], outputs=10)


def opened(network: str, region: str, data: Path) -> tuple[Loaded, Property]:
    if network == "digits":
        return digits()
    family, name = network.split()
    if family == "acasxu":
        file = data / "acasxu" / "onnx" / f"ACASXU_run2a_{name}_batch_2000.onnx"
        return load(file), read_property(data / "acasxu" / "vnnlib" / f"{region}.vnnlib")
    place = data / "vnncomp" / "mnist_fc"
    low, high = read_property(place / "vnnlib" / "prop_0_0.03.vnnlib.gz").cases[0].box.float32_hull()
    image = (low.astype(np.float64) + high) / 2.0
    around = box([float(v) - float(region) for v in image], [float(v) + float(region) for v in image])
    return load(place / "onnx" / f"mnist-net_{name}.onnx"), argmax_in(around, [0], outputs=10)


def sampled(first: Loaded, second: Loaded, region: Property) -> float:
    """The largest difference in ONNX Runtime on samples of our own, half of them corners."""
    random = np.random.default_rng(1)
    largest = 0.0
    for case in region.cases:
        low, high = case.box.float32_hull()
        share = random.random((SAMPLES, len(low)))
        share[::2] = np.round(share[::2])
        x = np.clip((low + share * (high - low)).astype(np.float32), low, high)
        ours, theirs = (_outputs(net, x) for net in (first, second))
        largest = max(largest, float(abs(ours - theirs).max()))
    return largest


def _outputs(net: Loaded, x: np.ndarray) -> np.ndarray:
    session = open_session(net.original if net.original is not None else write_onnx(net.network))
    return run(session, x.reshape(len(x), *session.input_shape)).reshape(len(x), -1).astype(np.float64)


def row(network: str, region: str, change: str, said: argparse.Namespace) -> Row:
    first, prop = opened(network, region, said.data)
    second = load(write_onnx(CHANGES[change](first.network)), name="changed.onnx")
    decision = "argmin" if network.startswith("acasxu") else "argmax"
    started = time.process_time()
    found: Difference = diff(first, second, prop, DiffConfig(boxes=said.boxes, decision=decision))
    cpu = time.process_time() - started
    low, high = found.separate
    separate = float(np.maximum(abs(low), abs(high)).max())
    seen = max(found.largest_seen, sampled(first, second, prop))
    if seen > found.largest:
        raise SystemExit(f"UNSOUND: {network}, {change}: {seen} was seen, {found.largest} certified")
    share = found.same_share if found.changed is None else float("nan")
    return Row(network, region, change, found.boxes, found.largest, separate, seen, share, cpu)


def show(rows: list[Row]) -> None:
    heads = ("network", "region", "change", "boxes", "certified", "separate", "ratio", "possible", "seen")
    table = Table(*heads, "decides alike on", "CPU s")
    for r in rows:
        share = "a witness differs" if np.isnan(r.alike) else f"{r.alike:.1%}"
        figures = (
            f"{r.certified:.4g}",
            f"{r.separate:.4g}",
            f"{r.ratio:.1f}",
            f"{r.possible:.1f}",
            f"{r.seen:.4g}",
        )
        table.add_row(r.network, r.region, r.change, f"{r.boxes:,}", *figures, share,
                      f"{r.cpu:.1f}")  # fmt: skip
    Console(width=150).print(table)


def main() -> None:
    """Parse the options, run, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--boxes", type=int, help="for each question; by the problem if left out")
    parser.add_argument("--only", type=int, help="one pair, by its place")
    parser.add_argument("--json", type=Path)
    said = parser.parse_args()
    if said.quick:
        said.boxes = said.boxes or 200
    pairs = PAIRS[:QUICK] if said.quick else PAIRS
    rows: list[Row] = []
    for pair in pairs if said.only is None else [PAIRS[said.only]]:
        rows.append(row(*pair, said))
        if not said.quick:
            show(rows[-1:])
    show(rows)
    if said.json:
        told = [{**asdict(r), "ratio": r.ratio, "possible": r.possible} for r in rows]
        said.json.write_text(json.dumps({"rows": told}, indent=1))


if __name__ == "__main__":
    main()
