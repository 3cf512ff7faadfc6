"""Order torture: every execution of a network lies inside its certified intervals, at every neuron.

    python benchmarks/trust_orders.py [--quick] [--networks N] [--points P] [--orders K] [--seed S]
        [--data FOLDER] [--json FILE]

An execution is one input through one network in one way of computing: sums forward, reversed, sorted, in
random orders and random trees, positive terms before negative ones; products rounded or fused; sums in
float64 rounded once; subnormals flushed; numpy's matrix product in batches of 1, 17 and all; ONNX Runtime
with 1 and 2 threads, with and without optimisations, in batches of 1, 3 and all, with all its inner values
as outputs. Intervals are those of bounds/crown.py around each single input, so that nothing but rounding
makes them wide. Networks: random ones, some with weights of a wide range or in the subnormal numbers, and
those of ACAS Xu where the data are. `used` is the largest share of the half-width of a sum's interval that
an execution strayed from its middle. Exits with 1 at any escape.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from rich.console import Console
from rich.table import Table
from trust_planted import loaded, single

from sutura.bounds.crown import crown
from sutura.bounds.lower import lower
from sutura.bounds.profile import EXECUTIONS, under
from sutura.bounds.region import Region
from sutura.network import ops
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load

NETWORKS, POINTS, ORDERS = 24, 40, 96
QUICK = (6, 8, 12)
PROFILE = "float32-any-order"
TINY = np.float32(2.0**-126)

Layers = Sequence[tuple[np.ndarray, np.ndarray]]
Found = tuple[str, int, int, int, float]
"""A way of computing, executions, numbers compared, escapes, and the largest share used."""

Way = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one way of computing."""

    way: str
    executions: int
    numbers: int
    escapes: int
    used: float


def random_layers(rng: np.random.Generator) -> Layers:
    """A random network: plain, of a wide dynamic range, with cancelling weights, or with subnormal ones."""
    sizes = [int(v) for v in rng.integers(2, 40, int(rng.integers(3, 6)))]
    kind = int(rng.integers(4))
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    for n, m in pairwise(sizes):
        w, b = rng.normal(size=(m, n)) / np.sqrt(n), rng.normal(size=m)
        if kind == 1:
            w *= 2.0 ** rng.integers(-12, 13, size=w.shape)
        elif kind == 2:
            w[:, 1::2] = -w[:, : 2 * (n // 2) : 2] * (1 + 1e-6 * rng.normal(size=(m, n // 2)))
        elif kind == 3:
            w, b = w * 2.0**-128, b * 2.0**-130
        layers.append((single(w), single(b)))
    return layers


def acasxu(folder: Path) -> Iterator[Layers]:
    """The weights of a few ACAS Xu networks, read as they are."""
    for place in sorted((folder / "acasxu" / "onnx").glob("*_1_[1-3]_*.onnx")):
        weights = [np.asarray(a) for a in _constants(place)]
        pairs = zip(weights[::2], weights[1::2], strict=True)
        yield [(w.T if w.shape[1] == len(b) else w, b) for w, b in pairs]


def _constants(place: Path) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for node in load(place).network.nodes:
        op = node.op
        if isinstance(op, ops.MatMul):
            found.append(op.weight)
        elif isinstance(op, ops.AddConstant):
            found.append(op.value.reshape(-1))
    return found


def in_order(
    order: Callable[[np.ndarray, np.random.Generator], np.ndarray], *, fused: bool, flush: bool
) -> Way:
    """Sums term by term, in the order that a rule gives for terms [points, summands, outputs]."""

    def way(products: np.ndarray, bias: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        terms = np.concatenate([products, np.broadcast_to(bias, (len(products), 1, len(bias)))], axis=1)
        rank = order(terms, rng)
        terms = np.take_along_axis(terms, np.broadcast_to(rank, terms.shape), axis=1)
        total = np.zeros((len(terms), terms.shape[2]), np.float32)
        for j in range(terms.shape[1]):
            term = terms[:, j] if fused else flushed(terms[:, j].astype(np.float32), flush)
            total = flushed((total + term).astype(np.float32), flush)
        return total

    return way


def flushed(x: np.ndarray, flush: bool) -> np.ndarray:
    """Subnormal numbers as zero."""
    return np.where(abs(x) < TINY, np.float32(0), x) if flush else x


def tree(products: np.ndarray, bias: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random binary tree over the rounded terms."""
    parts = [products[:, j].astype(np.float32) for j in range(products.shape[1])]
    parts.append(np.broadcast_to(bias, parts[0].shape))
    while len(parts) > 1:
        i, j = sorted(rng.choice(len(parts), 2, replace=False))
        parts.append(parts.pop(j) + parts.pop(i))
    return parts[0]


def wide(products: np.ndarray, bias: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Accumulated in float64 and rounded once."""
    return (products.sum(axis=1) + bias).astype(np.float32)


def permuted(terms: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(terms.shape[1])[None, :, None]


WAYS: dict[str, Way] = {
    "forward": in_order(lambda t, _: np.arange(t.shape[1])[None, :, None], fused=False, flush=False),
    "reversed": in_order(lambda t, _: np.arange(t.shape[1])[None, ::-1, None], fused=False, flush=False),
    "ascending": in_order(lambda t, _: abs(t).argsort(axis=1), fused=False, flush=False),
    "descending": in_order(lambda t, _: (-abs(t)).argsort(axis=1), fused=False, flush=False),
    "positives first": in_order(
        lambda t, _: (t < 0).argsort(axis=1, kind="stable"), fused=False, flush=False
    ),
    "random": in_order(permuted, fused=False, flush=False),
    "random, fused": in_order(permuted, fused=True, flush=False),
    "random, flushed": in_order(permuted, fused=False, flush=True),
    "random tree": tree,
    "float64, rounded once": wide,
}
RANDOM = ("random", "random, fused", "random, flushed", "random tree")


def emulated(layers: Layers, x: np.ndarray, way: Way, rng: np.random.Generator) -> list[np.ndarray]:
    """Every value of the network, computed in one way."""
    values: list[np.ndarray] = []
    for at, (weight, bias) in enumerate(layers):
        products = x.astype(np.float64)[:, :, None] * weight.astype(np.float64).T[None]
        x = way(products, bias, rng)
        values.append(x)
        if at < len(layers) - 1:
            x = np.maximum(x, np.float32(0))
            values.append(x)
    return values


def multiplied(layers: Layers, x: np.ndarray, batch: int) -> list[np.ndarray]:
    """numpy's own matrix product, in batches."""
    parts: list[list[np.ndarray]] = []
    for first in range(0, len(x), batch):
        h, values = x[first : first + batch], list[np.ndarray]()
        for at, (weight, bias) in enumerate(layers):
            h = h @ weight.T + bias
            values.append(h)
            if at < len(layers) - 1:
                h = np.maximum(h, np.float32(0))
                values.append(h)
        parts.append(values)
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def exposed(layers: Layers) -> bytes:
    """The ONNX file with all inner values as outputs."""
    model = onnx.load_from_string(write_onnx(loaded(layers).network))
    known = {output.name for output in model.graph.output}
    for node in model.graph.node:
        if node.output[0] not in known:
            model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], 1, None))
    assert all(numpy_helper.to_array(t).dtype == np.float32 for t in model.graph.initializer)
    return model.SerializeToString()


def by_runtime(data: bytes, x: np.ndarray, how: tuple[int, bool, int]) -> list[np.ndarray]:
    """ONNX Runtime with so many threads, with or without optimisations, in batches."""
    threads, optimise, batch = how
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [node.output[0] for node in onnx.load_from_string(data).graph.node]
    feed = session.get_inputs()[0].name
    runs = [session.run(names, {feed: x[first : first + batch]}) for first in range(0, len(x), batch)]
    return [np.concatenate(part) for part in zip(*runs, strict=True)]


def torture(layers: Layers, points: int, orders: int, rng: np.random.Generator) -> Iterator[Found]:
    """What each way of computing gives for one network."""
    x = single(rng.normal(size=(points, layers[0][0].shape[1])))
    region = Region(x.astype(np.float64), x.astype(np.float64))
    found = crown(under(lower(loaded(layers).network), EXECUTIONS[PROFILE]), region)
    ends = list(zip(found.low[1:], found.high[1:], strict=True))

    def held(name: str, values: list[np.ndarray]) -> Found:
        pairs = list(zip(values, ends, strict=True))
        outside = sum(int(((v < low) | (v > high)).sum()) for v, (low, high) in pairs)
        widths = ((v, low, high, np.maximum(high - low, 1e-300)) for v, (low, high) in pairs[::2])
        share = max(float((abs(2 * v - low - high) / width).max()) for v, low, high, width in widths)
        return name, points, sum(v.size for v in values), outside, share

    for name, way in WAYS.items():
        for _ in range(max(1, orders // 4) if name in RANDOM else 1):
            yield held(name, emulated(layers, x, way, rng))
    for batch in (1, 17, points):
        yield held("numpy", multiplied(layers, x, batch))
    data = exposed(layers)
    for threads in (1, 2):
        for optimise in (False, True):
            for batch in (1, 3, points):
                yield held("ONNX Runtime", by_runtime(data, x, (threads, optimise, batch)))


def run(networks: int, points: int, orders: int, seed: int, data: Path | None) -> list[Row]:
    """All networks; rows by way of computing."""
    totals: dict[str, list[float]] = {}
    rng = np.random.default_rng(seed)
    extra = [] if data is None else list(acasxu(data))
    for layers in [*(random_layers(rng) for _ in range(networks)), *extra]:
        for name, *figures, used in torture(layers, points, orders, rng):
            old = totals.setdefault(name, [0, 0, 0, 0.0])
            totals[name] = [*(a + b for a, b in zip(old, figures, strict=False)), max(old[3], used)]
    return [Row(name, int(a), int(b), int(c), used) for name, (a, b, c, used) in totals.items()]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--networks", type=int)
    parser.add_argument("--points", type=int)
    parser.add_argument("--orders", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", "../shared/data")))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    usual = QUICK if given.quick else (NETWORKS, POINTS, ORDERS)
    asked = given.networks, given.points, given.orders
    wanted = [size if want is None else want for want, size in zip(asked, usual, strict=True)]
    data = given.data if (given.data / "acasxu").is_dir() and not given.quick else None
    began = time.perf_counter()
    rows = run(*wanted, given.seed, data)
    table = Table(*(key for key in asdict(rows[0])))
    for row in rows:
        table.add_row(row.way, f"{row.executions:,}", f"{row.numbers:,}", str(row.escapes), f"{row.used:.3f}")
    total = Counter[str]()
    for row in rows:
        total.update({"executions": row.executions, "numbers": row.numbers, "escapes": row.escapes})
    console = Console(soft_wrap=True)
    console.print(table)
    said = ", ".join(f"{total[key]:,} {key}" for key in ("executions", "numbers", "escapes"))
    console.print(f"{said}; {time.perf_counter() - began:.0f} s")
    if given.json:
        given.json.write_text(json.dumps({"rows": [asdict(row) for row in rows], **total}, indent=2))
    return 1 if total["escapes"] else 0


if __name__ == "__main__":
    sys.exit(main())
