"""qualify(): how a runtime really rounds, measured on this machine, as a profile that verify can take.

A falsification test, not a proof: sums and products that would betray TF32, chopping or a wrong bound are
compared with exact rational numbers, and Sigmoid and Tanh with float64 on a sample of float32 inputs, or on
all of them.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from sutura.bounds.profile import EXECUTIONS
from sutura.bounds.relaxation import CURVE_ERROR
from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import write_onnx
from sutura.network.run import Session, open_session, run

SCHEMA, VERSION = "sutura/profile", 1
CHUNK = 1 << 22
WIDTHS = (1, 2, 7, 64, 257)
DRAWS = 24


@dataclass(frozen=True, slots=True)
class Curve:
    """An operator against the function: inputs tried, all of them or not, the largest error, how many outputs
    leave the function's range, and how many neighbours decrease where the function does not."""

    operator: str
    inputs: int
    exhaustive: bool
    error: float
    outside: int
    decreasing: int


@dataclass(frozen=True, slots=True)
class Qualified:
    """A runtime's profile. `execution` is the strongest of `bounds.profile.EXECUTIONS` that nothing
    contradicted; `share` the largest part of its error bound that a sum used; `subnormals` whether they are
    kept; `same_in_batches` whether a sample gives the same bits in every batch size tried."""

    runtime: str
    processor: str
    execution: str
    share: float
    subnormals: str
    same_in_batches: bool
    curves: tuple[Curve, ...]


def qualify(*, exhaustive: bool = False, samples: int = 1 << 20, seed: int = 0) -> Qualified:
    """Measure ONNX Runtime on this machine's CPU. `samples` inputs are tried for each curve, or all float32.

    Raises NetworkError where sums stray further than any profile allows.
    """
    import onnxruntime

    rng = np.random.default_rng(seed)
    shares = {name: _share(name, seed) for name in ("float32-any-order", "float32-chopping", "tf32")}
    execution = next((name for name, share in shares.items() if share <= 1.0), None)
    if execution is None:
        raise NetworkError(f"sums of ONNX Runtime stray beyond every profile: {shares}")
    return Qualified(
        runtime=f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider",
        processor=f"{platform.machine()} {platform.processor() or platform.system()}",
        execution=execution,
        share=shares[execution],
        subnormals=_subnormals(),
        same_in_batches=_same_in_batches(rng),
        curves=tuple(_curve(name, exhaustive, samples, rng) for name in CURVES),
    )


def dumps(found: Qualified) -> bytes:
    """The profile as a JSON file."""
    return (json.dumps({"schema": SCHEMA, "version": VERSION, **asdict(found)}, indent=2) + "\n").encode()


def loads(data: bytes) -> Qualified:
    """A profile from its file. Raises NetworkError where it is none, or where the runtime errs by more than
    bounds allow for."""
    try:
        document: dict[str, Any] = json.loads(data)
        if (document.pop("schema"), document.pop("version")) != (SCHEMA, VERSION):
            raise ValueError("another schema")
        curves = tuple(Curve(**curve) for curve in document.pop("curves"))
        found = Qualified(**document, curves=curves)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NetworkError(f"the file is no execution profile that sutura wrote: {error}") from None
    if found.execution not in EXECUTIONS or found.execution == "reals":
        raise NetworkError(f"the profile names the execution {found.execution!r}, which none can have")
    for curve in found.curves:
        if not curve.error <= CURVE_ERROR:
            raise NetworkError(
                f"{curve.operator} of {found.runtime} errs by {curve.error:g}; bounds allow {CURVE_ERROR:g}"
            )
    return found


def read_profile(place: Path) -> Qualified:
    """The profile in a file."""
    return loads(place.read_bytes())


def _session(inputs: int, op: Any, outputs: int) -> Session:
    nodes = (Node("n", op, ("x",), "y"),)
    return open_session(write_onnx(Network("probe", "x", "y", nodes, {"x": (inputs,), "y": (outputs,)}, "")))


def _share(name: str, seed: int) -> float:
    """The largest |computed - exact| / bound over cancelling, wide and plain sums, under one profile."""
    execution = EXECUTIONS[name]
    factor, unit = Fraction(execution.factor), Fraction(execution.unit)
    worst = Fraction(0)
    for n in WIDTHS:
        gamma = (n + 1) * unit / (1 - (n + 1) * unit)
        relative = (1 + factor) ** 2 * (1 + gamma) - 1
        for weight, x in _adversarial(n, np.random.default_rng((seed, n))):
            (computed,) = run(_session(n, ops.MatMul(weight[:, None]), 1), x[None])[0]
            terms = [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(weight, x, strict=True)]
            bound = relative * sum(map(abs, terms)) + Fraction(1, 2**120)
            worst = max(worst, abs(Fraction(float(computed)) - sum(terms)) / bound)
    return float(worst)


def _adversarial(n: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights and inputs that show how sums round: full mantissas, cancellation, a wide range."""
    for draw in range(DRAWS):
        w, x = rng.normal(size=n), 1 + rng.random(n)
        if draw % 3 == 1:
            w[1::2] = -w[: 2 * (n // 2) : 2] * (1 + 2.0**-20 * rng.normal(size=n // 2))
        elif draw % 3 == 2:
            w *= 2.0 ** rng.integers(-12, 13, n)
        yield w.astype(np.float32), x.astype(np.float32)


def _subnormals() -> str:
    x = np.array([[2.0**-140]], np.float32)
    one = np.ones((1, 1), np.float32)
    return "kept" if run(_session(1, ops.MatMul(one), 1), x)[0, 0] == x[0, 0] else "flushed"


def _same_in_batches(rng: np.random.Generator) -> bool:
    session = _session(64, ops.MatMul(rng.normal(size=(64, 16)).astype(np.float32)), 16)
    x = rng.normal(size=(65, 64)).astype(np.float32)
    whole = run(session, x)
    return all(np.array_equal(run(session, x[:size]), whole[:size]) for size in (1, 2, 3, 17, 64))


def _curve(name: str, exhaustive: bool, samples: int, rng: np.random.Generator) -> Curve:
    op, exact, (low, high) = CURVES[name]
    session = _session(1, op, 1)
    tried = outside = decreasing = 0
    error = 0.0
    for x in _inputs(exhaustive, samples, rng):
        y = run(session, x[:, None])[:, 0]
        error = max(error, float(abs(y.astype(np.float64) - exact(x.astype(np.float64))).max()))
        outside += int(((y < low) | (y > high)).sum())
        decreasing += int((y[1:] < y[:-1]).sum())
        tried += len(x)
    return Curve(name, tried, exhaustive, error, outside, decreasing)


def _inputs(exhaustive: bool, samples: int, rng: np.random.Generator) -> Iterator[Float32[np.ndarray, " n"]]:
    """Ascending float32 numbers in chunks: all finite ones, or runs of neighbours over the exponents."""
    if not exhaustive:
        starts = rng.integers(0, 0x43000000, max(1, samples // 256), dtype=np.uint32)
        for sign in (0, 1 << 31):
            bits = np.sort((starts[:, None] + np.arange(128, dtype=np.uint32)).reshape(-1))
            yield np.sort((bits | np.uint32(sign)).view(np.float32))
        return
    for sign in (0, 1 << 31):
        for first in range(0, 0x7F800000, CHUNK):
            bits = np.arange(first, min(first + CHUNK, 0x7F800000), dtype=np.uint32) | np.uint32(sign)
            yield np.sort(bits.view(np.float32))


def _sigmoid(x: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    small = np.exp(-abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


CURVES: dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray], tuple[float, float]]] = {
    "Sigmoid": (ops.Sigmoid(), _sigmoid, (0.0, 1.0)),
    "Tanh": (ops.Tanh(), np.tanh, (-1.0, 1.0)),
}
"""Operators that IEEE 754 does not define, what they should compute, and its range."""
