"""Which orientations the data attract, before any training: fixed points of the initial flow.

With small weights a neuron of an activation of multiplicity p moves by w' ~ sum_i e_i (w . x_i)^(p-1) x_i
with
e_i = y_i - f(x_i) (arXiv 2105.11686, Section 5). Its direction then follows T u^(p-1), T = sum_i e_i
x_i^(x)p,
and comes to rest at eigenvectors of that symmetric tensor: for p = 1 one line, for p = 2 the extreme
eigenvectors of a matrix, for p >= 3 found by shifted power iteration (Kolda and Mayo, SIAM J. Matrix Anal.
2011).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

Array = np.ndarray

SAME = 1.0 - 1e-6
"""Cosine from which two fixed points are one."""

STEPS, PACE = 4000, 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Inputs with a one appended, the error of each, and the multiplicity p."""

    x: Float64[Array, "samples inputs"]
    error: Float64[Array, " samples"]
    p: int


@dataclass(frozen=True, slots=True, eq=False)
class Stable:
    """Unit vectors at which neurons of each sign of output weight come to rest, and their eigenvalues."""

    unit: Float64[Array, "orientations inputs"]
    value: Float64[Array, " orientations"]

    @property
    def lines(self) -> Float64[Array, "lines inputs"]:
        """One vector for each line."""
        kept: list[Array] = []
        for u in self.unit:
            if all(abs(float(u @ v)) < SAME for v in kept):
                kept.append(u)
        return np.array(kept).reshape(len(kept), self.unit.shape[1])


def field(x: Float64[Array, "samples d"], error: Float64[Array, " samples"], p: int) -> Field:
    """The field of data with inputs `x` and errors y - f(x) of `error` (near the start y itself)."""
    ones = np.ones((len(x), 1))
    return Field(np.concatenate([np.asarray(x, np.float64), ones], axis=1), np.asarray(error, np.float64), p)


def pull(flow: Field, u: Float64[Array, "k inputs"]) -> Float64[Array, "k inputs"]:
    """T u^(p-1) for each u: where the data draw a neuron of that direction and positive output weight."""
    return ((u @ flow.x.T) ** (flow.p - 1) * flow.error) @ flow.x


def stable(flow: Field, starts: int = 256, seed: int = 0) -> Stable:
    """All orientations found stable, for both signs of output weight; for p >= 3 an estimate.

    Exact (up to rounding) for p = 1, the direction of sum e_i x_i and its opposite, and for p = 2, the
    extreme
    eigenvectors of sum e_i x_i x_i^T.
    """
    if flow.p == 1:
        mean = flow.error @ flow.x
        unit = mean / np.linalg.norm(mean)
        return Stable(np.array([unit, -unit]), np.full(2, float(np.linalg.norm(mean))))
    if flow.p == 2:
        values, vectors = np.linalg.eigh((flow.x * flow.error[:, None]).T @ flow.x)
        ends = [at for at, grows in ((-1, values[-1] > 0), (0, values[0] < 0)) if grows]
        return Stable(_with_opposites(vectors[:, ends].T, 2), np.repeat(values[ends], 2))
    return _rest(flow, starts, seed)


def _rest(flow: Field, starts: int, seed: int) -> Stable:
    """Power iteration from random starts, uphill for one sign of output weight, down for the other."""
    random = np.random.default_rng(seed)
    u = random.normal(size=(starts, flow.x.shape[1]))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    sign = np.where(np.arange(starts) % 2, 1.0, -1.0)[:, None]
    for _ in range(STEPS):
        drawn = pull(flow, u)
        # A step this short rises: the largest pull seen bounds how fast the field turns near its peaks.
        u = u + PACE * sign * drawn / np.linalg.norm(drawn, axis=1).max()
        u /= np.linalg.norm(u, axis=1, keepdims=True)
    drawn = pull(flow, u)
    value = (drawn * u).sum(axis=1)
    at_rest = np.linalg.norm(drawn - value[:, None] * u, axis=1) < 1e-6 * np.maximum(abs(value), 1e-30)
    upward = (value * sign[:, 0]) > 0
    kept: list[int] = []
    for at in np.flatnonzero(at_rest & upward & _is_peak(flow, u, value)):
        if all(float(u[at] @ u[k]) < SAME for k in kept):
            kept.append(int(at))
    return Stable(_with_opposites(u[kept], flow.p), np.repeat(value[kept], _sides(flow.p)))


def _sides(p: int) -> int:
    """For odd p the opposites rest downhill by themselves; for even p both of a pair are alike."""
    return 1 if p % 2 else 2


def _with_opposites(u: Float64[Array, "k inputs"], p: int) -> Float64[Array, "j inputs"]:
    return u if p % 2 else np.stack([u, -u], axis=1).reshape(-1, u.shape[1])


def _is_peak(flow: Field, u: Float64[Array, "k inputs"], value: Float64[Array, " k"]) -> Array:
    """Whether the Hessian on the sphere is negative definite where uphill, positive where downhill."""
    found = np.zeros(len(u), dtype=bool)
    for at, (vector, height) in enumerate(zip(u, value, strict=True)):
        weight = (flow.p - 1) * flow.error * (flow.x @ vector) ** (flow.p - 2)
        hessian = (flow.x * weight[:, None]).T @ flow.x - height * np.eye(len(vector))
        tangent = np.linalg.svd(vector[None])[2][1:]
        bends = np.linalg.eigvalsh(tangent @ hessian @ tangent.T) * math.copysign(1.0, height)
        found[at] = bool((bends < 0).all())
    return found
