"""Generalised pattern search: minimise a black box by polling around the best point, all polls in one batch.

Torczon 1997; Audet and Dennis 2003. It rests where no direction of the basis improves: a local result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.risk.ball import Domain

Objective = Callable[[Float64[np.ndarray, "batch n"]], Float64[np.ndarray, " batch"]]
Basis = Float64[np.ndarray, "directions n"]

SUBSPACE = 256
"""Random directions polled at once where there are more inputs."""


@dataclass(frozen=True, slots=True)
class PatternConfig:
    """The mesh starts at `mesh` units, grows by `expansion` after a success and shrinks by `contraction`
    after a failure, until it is below `tolerance`. `directions`: the 2n coordinate directions, or a random
    orthogonal basis (of a subspace beyond 256 inputs) drawn anew for each poll. `evaluations` None: 2,000 an
    input."""

    mesh: float = 1.0
    expansion: float = 1.3
    contraction: float = 0.8
    tolerance: float = 1e-5
    iterations: int = 1500
    evaluations: int | None = None
    directions: Literal["coordinates", "orthogonal"] = "coordinates"
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PatternResult:
    """The best point of each search, its value, and what it took."""

    x: Float64[np.ndarray, "batch n"]
    value: Float64[np.ndarray, " batch"]
    iterations: int
    evaluations: int


def pattern_search(
    objective: Objective,
    domain: Domain,
    starts: Float64[np.ndarray, "batch n"],
    config: PatternConfig,
    checkpoint: Checkpoint = no_checkpoint,
) -> PatternResult:
    """Minimise `objective` over the domain from every start; complete polls of all searches are one batch.

    Polled points are clipped to the domain. An estimate: the result is local.
    """
    count, size = starts.shape
    random = np.random.default_rng(config.seed)
    most = 2000 * size if config.evaluations is None else config.evaluations
    x, value = starts, objective(starts)
    mesh, spent, done = np.full(count, config.mesh), count, 0
    basis = DIRECTIONS[config.directions](size, random)
    while done < config.iterations and spent < most * count and (mesh >= config.tolerance).any():
        checkpoint()
        live = np.flatnonzero(mesh >= config.tolerance)
        if config.directions != "coordinates":
            basis = DIRECTIONS[config.directions](size, random)
        polled = x[live, None] + mesh[live, None, None] * (basis * domain.scale)[None]
        polled = np.clip(polled, domain.low, domain.high)
        found = objective(polled.reshape(-1, size)).reshape(len(live), -1)
        best = found.argmin(axis=1)
        better = found[np.arange(len(live)), best] < value[live]
        rows = live[better]
        x, value, mesh = x.copy(), value.copy(), mesh.copy()
        x[rows] = polled[better, best[better]]
        value[rows] = found[better, best[better]]
        mesh[live] *= np.where(better, config.expansion, config.contraction)
        spent, done = spent + found.size, done + 1
    return PatternResult(x, value, done, spent)


def _coordinates(size: int, _: np.random.Generator) -> Basis:
    return np.concatenate([np.eye(size), -np.eye(size)])


def _orthogonal(size: int, random: np.random.Generator) -> Basis:
    """Orthonormal directions and their opposites, scaled so that one input moves by one unit at most."""
    q = np.linalg.qr(random.normal(size=(size, min(size, SUBSPACE))))[0].T
    q = q / abs(q).max(axis=1, keepdims=True)
    return np.concatenate([q, -q])


DIRECTIONS: Mapping[str, Callable[[int, np.random.Generator], Basis]] = {
    "coordinates": _coordinates,
    "orthogonal": _orthogonal,
}
