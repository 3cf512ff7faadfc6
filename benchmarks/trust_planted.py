"""Networks whose truth is planted: every verdict on them is held against it. Zero may be wrong.

    python benchmarks/trust_planted.py [--quick] [--count N] [--seed S] [--timeout S] [--json FILE]

Families: `hat` hides a narrow peak in a random network and asks for less than what ONNX Runtime returns
at its tip (violated); `capped` and `monotone` have a maximum that is known exactly and ask for more
(satisfied); `ulp` computes without rounding and asks for its maximum plus or minus one unit in the last
place, strictly or not (known); `order` is zero over the reals, but not in every order of summation (never
proved).

False proved: proved where it is violated or depends on the order. False violated: violated where it is
satisfied, or a witness that does not break the property exactly in a fresh session. Every proof is attacked
besides with random inputs in ONNX Runtime and in random orders of summation; one escape is a false proof.

The second table shows networks of order-dependence: upper bounds of the output in real arithmetic (0, so
that a proof of the reals says "safe") and for every float32 execution, the verdict, and what ONNX Runtime
returns. Exits with 1 if any verdict is false.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from sutura.bounds.crown import crown
from sutura.bounds.lower import lower
from sutura.bounds.profile import EXECUTIONS, under
from sutura.bounds.region import Region
from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded
from sutura.network.run import open_session
from sutura.network.shapes import output_shape
from sutura.property.build import box
from sutura.property.spec import Case, Inequality, Property, violates
from sutura.verdict.outcome import Outcome, Proved, Unknown, Violated
from sutura.verdict.replay import runner
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify

VIOLATED, SATISFIED, DEPENDS = "violated", "satisfied", "depends on the order"
COUNT, QUICK_COUNT, TIMEOUT = 1000, 40, 1.0
SAMPLES, ORDERS = 400, 4
SHOWN = ("reals", "float32-any-order")


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """A network of dense layers with ReLU between them (weights [out, in]), a question, and its truth."""

    family: str
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    prop: Property
    truth: str


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one family."""

    family: str
    count: int
    proved: int
    violated: int
    unknown: int
    false_proved: int
    false_violated: int
    seconds: float


def single(values: object) -> np.ndarray:
    """float32."""
    return np.asarray(values, dtype=np.float32)


def loaded(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> Loaded:
    """The layers as a network, as if it had been read from a file."""
    size = layers[0][0].shape[1]
    shapes: dict[str, tuple[int, ...]] = {"x": (size,)}
    nodes: list[Node] = []
    name = "x"
    steps = [op for w, b in layers for op in (ops.Gemm(w, b, transposed=True), ops.Relu())][:-1]
    for at, op in enumerate(steps):
        shapes[f"v{at}"] = output_shape(op, (shapes[name],))
        nodes.append(Node(f"n{at}", op, (name,), f"v{at}"))
        name = f"v{at}"
    return Loaded(Network("planted", "x", name, tuple(nodes), shapes, ""), None, 0.0)


def unsafe_above(size: int, low: object, high: object, bound: Fraction, *, strict: bool = False) -> Property:
    """y >= bound (or > where strict) is unsafe for inputs in the box."""
    wanted = Inequality(((0, Fraction(-1)),), -bound, strict)
    case = Case(box(np.asarray(low).tolist(), np.asarray(high).tolist()), ((wanted,),))
    return Property("planted", size, 1, (case,), b"")


def hat(rng: np.random.Generator) -> Planted:
    """A peak of radius 1e-1 to 1e-6 beside a random network of one or two hidden layers."""
    n, width = int(rng.integers(1, 5)), int(rng.integers(4, 20))
    peak = single(rng.uniform(-0.9, 0.9, n))
    steep = np.float32(10.0 ** rng.uniform(1, 6))
    signs = single(np.repeat(np.eye(n), 2, axis=0) * np.tile([1.0, -1.0], n)[:, None])
    first = np.concatenate([signs, single(rng.normal(size=(width, n)))])
    shift = np.concatenate([-signs @ peak, single(rng.normal(size=width))])
    second = np.zeros((1 + width, 2 * n + width), np.float32)
    second[0, : 2 * n] = -steep
    second[1:, 2 * n :] = rng.normal(size=(width, width)) / np.sqrt(width)
    height = single([1.0, *rng.normal(size=width)])
    last = single([[4.0, *(rng.normal(size=width) * 0.1)]])
    layers = ((first, single(shift)), (second, height), (last, single([0.0])))
    top = execute(layers, peak[None])[0, 0]
    prop = unsafe_above(n, [-1.0] * n, [1.0] * n, Fraction(float(np.nextafter(top, np.float32(-np.inf)))))
    return Planted("hat", layers, prop, VIOLATED)


def capped(rng: np.random.Generator) -> Planted:
    """C - sum w_i |x_i - p_i| has the maximum C, at p."""
    n = int(rng.integers(1, 5))
    peak, weights = single(rng.integers(-60, 61, n) / 64), single(rng.integers(1, 33, n) / 4)
    top = float(rng.integers(-16, 17))
    signs = single(np.repeat(np.eye(n), 2, axis=0) * np.tile([1.0, -1.0], n)[:, None])
    layers = ((signs, -signs @ peak), (-np.repeat(weights, 2)[None], single([top])))
    margin = Fraction(float(10.0 ** rng.uniform(-4, 0)))
    return Planted(
        "capped", layers, unsafe_above(n, [-1.0] * n, [1.0] * n, Fraction(top) + margin), SATISFIED
    )


def monotone(rng: np.random.Generator) -> Planted:
    """Weights that are not negative: the maximum is at the upper corner, and rational arithmetic knows it."""
    sizes = [int(rng.integers(1, 6)), *(int(v) for v in rng.integers(3, 12, int(rng.integers(1, 3)))), 1]
    pairs = list(pairwise(sizes))
    layers = tuple((single(abs(rng.normal(size=(b, a)))), single(rng.normal(size=b))) for a, b in pairs)
    high = single(rng.uniform(0, 1, sizes[0]))
    value = [Fraction(float(v)) for v in high]
    for at, (weight, bias) in enumerate(layers):
        rows = [[Fraction(float(v)) for v in row] for row in weight]
        sums = (sum((w * v for w, v in zip(row, value, strict=True)), Fraction(float(b)))
                for row, b in zip(rows, bias, strict=True))  # fmt: skip
        value = [s if at == len(layers) - 1 else max(s, Fraction(0)) for s in sums]
    prop = unsafe_above(
        sizes[0], [-1.0] * sizes[0], high, value[0] + abs(value[0]) / 1000 + Fraction(1, 1000)
    )
    return Planted("monotone", layers, prop, SATISFIED)


def ulp(rng: np.random.Generator) -> Planted:
    """2^k relu(x) over [-1, 1] rounds nothing: one unit beside its maximum decides."""
    scale = float(2.0 ** int(rng.integers(-20, 21)))
    layers = ((single([[scale]]), single([0.0])), (single([[1.0]]), single([0.0])))
    step = int(rng.integers(-1, 2))
    beside = np.nextafter(np.float32(scale), np.float32(np.inf * step)) if step else np.float32(scale)
    strict = bool(rng.integers(2))
    holds = beside > scale or (strict and beside == scale)
    prop = unsafe_above(1, [-1.0], [1.0], Fraction(float(beside)), strict=strict)
    return Planted("ulp", layers, prop, SATISFIED if holds else VIOLATED)


def order(rng: np.random.Generator) -> Planted:
    """omega - omega + 1, with the ones between: zero over the reals after 10 relu(0.5 - y)."""
    return cancelling(int(rng.integers(3, 70)), float(2.0 ** rng.uniform(18, 31)), rng)


def cancelling(n: int, omega: float, rng: np.random.Generator | None = None) -> Planted:
    """The network of order-dependence for n summands; `rng` shuffles them."""
    row = -single([omega, *[1 / (n - 2)] * (n - 2), -omega])
    row = row if rng is None else rng.permutation(row)
    layers = (
        (np.zeros((n, 1), np.float32), np.ones(n, np.float32)),
        (row[None], single([0.5])),
        (single([[10.0]]), single([0.0])),
    )
    return Planted("order", layers, unsafe_above(1, [0.0], [1.0], Fraction(1)), DEPENDS)


def execute(layers: Sequence[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """The layers in ONNX Runtime."""
    return runner(open_session(write_onnx(loaded(layers).network)))(x)


def shuffled(
    layers: Sequence[tuple[np.ndarray, np.ndarray]], x: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The layers in float32, every sum in a random order."""
    for at, (weight, bias) in enumerate(layers):
        terms = np.concatenate(
            [weight.T[None] * x[:, :, None], np.broadcast_to(bias, (len(x), 1, len(bias)))], axis=1
        )
        total = np.zeros((len(x), len(bias)), np.float32)
        for j in rng.permutation(terms.shape[1]):
            total = total + terms[:, j]
        x = total if at == len(layers) - 1 else np.maximum(total, 0)
    return x


def wrong(planted: Planted, outcome: Outcome, rng: np.random.Generator) -> str:
    """Nothing, or how the verdict contradicts the truth."""
    if isinstance(outcome.verdict, Unknown):
        return ""
    if isinstance(outcome.verdict, Violated):
        point = outcome.verdict.witness.input
        again = execute(planted.layers, point[None])[0]
        real = violates(planted.prop, point, again) and planted.truth != SATISFIED
        return "" if real else "false violated"
    if planted.truth != SATISFIED:
        return "false proved"
    low, high = planted.prop.cases[0].box.float32_hull()
    x = single(low + rng.random((SAMPLES, len(low))) * (high - low)).clip(low, high)
    runs = [execute(planted.layers, x), *(shuffled(planted.layers, x, rng) for _ in range(ORDERS))]
    (inequality,) = planted.prop.cases[0].unsafe[0]
    worst = max(Fraction(float(y.max())) for y in runs)
    unsafe = worst > -inequality.bound or (worst == -inequality.bound and not inequality.strict)
    return "false proved" if unsafe else ""


def judge(count: int, seed: int, timeout: float) -> tuple[list[Row], list[str]]:
    """Verdicts on `count` networks, in equal parts of each family; and every one that was false."""
    rows: list[Row] = []
    failures: list[str] = []
    for number, make in enumerate(FAMILIES):
        began, words = time.perf_counter(), Counter[str]()
        for at in range(-(-count // len(FAMILIES))):
            rng = np.random.default_rng((seed, number, at))
            planted = make(rng)
            config = VerifyConfig(timeout=timeout, workers=1, seed=seed)
            outcome = verify(loaded(planted.layers), planted.prop, config)
            words[type(outcome.verdict).__name__] += 1
            said = wrong(planted, outcome, rng)
            if said:
                words[said] += 1
                failures.append(f"{planted.family} {seed}/{number}/{at}: {said}, but it is {planted.truth}")
        total = sum(words[kind.__name__] for kind in (Proved, Violated, Unknown))
        counts = (words[key] for key in ("Proved", "Violated", "Unknown", "false proved", "false violated"))
        rows.append(Row(make.__name__, total, *counts, time.perf_counter() - began))
    return rows, failures


def shown(n: int, omega: float) -> dict[str, object]:
    """One network of order-dependence: bounds and verdict beside what ONNX Runtime returns."""
    planted = cancelling(n, omega)
    program = lower(loaded(planted.layers).network)
    region = Region(np.zeros((1, 1)), np.ones((1, 1)))
    bounds = {name: crown(under(program, EXECUTIONS[name]), region).high[-1] for name in SHOWN}
    verdict = verify(loaded(planted.layers), planted.prop, VerifyConfig(1.0, 1)).verdict
    said: dict[str, object] = {"n": n, "omega": omega}
    said |= {f"bound, {name}": float(value[0, 0]) for name, value in bounds.items()}
    executed = float(execute(planted.layers, single([[0.5]]))[0, 0])
    return said | {"verdict": type(verdict).__name__, "ONNX Runtime": executed}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=TIMEOUT)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows, failures = judge(given.count or (QUICK_COUNT if given.quick else COUNT), given.seed, given.timeout)
    dependent = [shown(n, omega) for n, omega in ((3, 2.0**25), (34, 2.0**20), (66, 2.0**30))]
    console = Console(soft_wrap=True)
    for records in ([asdict(row) for row in rows], dependent):
        table = Table(*(str(key) for key in records[0]))
        for record in records:
            table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in record.values()))
        console.print(table)
    console.print("\n".join(failures) or f"none of {sum(row.count for row in rows)} verdicts is false")
    if given.json:
        given.json.write_text(
            json.dumps({"families": [asdict(row) for row in rows], "order": dependent}, indent=2)
        )
    return 1 if failures else 0


FAMILIES: tuple[Callable[[np.random.Generator], Planted], ...] = (hat, capped, monotone, ulp, order)

if __name__ == "__main__":
    sys.exit(main())
