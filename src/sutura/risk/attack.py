"""Attacked upper bounds: every way of looking for a near point at risk, in the order of what it costs."""

from __future__ import annotations

import numpy as np

from sutura.bounds.crown import Checkpoint
from sutura.risk.boundary import Asked, BoundaryConfig, Found, boundary_attack
from sutura.risk.branch import FEW_INPUTS
from sutura.risk.descent import ladder_attack, smaller_attack
from sutura.risk.model import Model
from sutura.risk.polish import polished
from sutura.risk.safety import Uncertainty, at_risk
from sutura.risk.scatter import scattered_attack
from sutura.risk.unguided import unguided_attack

ROUNDS = 3
"""Times that descents in smaller balls are repeated where the boundary is curved."""


def nearest_found(seen: Model, asked: Asked, config: BoundaryConfig, checkpoint: Checkpoint) -> Found:
    """The nearest point at risk known for each input: the input itself where the risk is there already.

    Upper bounds: every witness was replayed in ONNX Runtime. Without gradients it is a black-box search.
    """
    if seen.slopes is None:
        found = unguided_attack(seen, asked, config.seed, checkpoint)
    else:
        found = boundary_attack(seen, asked, config, checkpoint=checkpoint)
        if len(asked.domain.low) <= FEW_INPUTS:
            found = found.nearer(scattered_attack(seen, asked, config, checkpoint))
        curved = isinstance(asked.risk, Uncertainty)
        found = _put(
            found, np.flatnonzero(np.isinf(found.distance) | curved), seen, asked, config, checkpoint
        )
        found = polished(seen, asked, found, checkpoint)
    here = at_risk(asked.risk, seen.run(asked.centre.astype(np.float32)), asked.label)
    return found.nearer(Found(np.where(here, 0.0, np.inf), asked.centre.astype(np.float32)))


def _put(
    found: Found,
    at: np.ndarray,
    seen: Model,
    asked: Asked,
    config: BoundaryConfig,
    checkpoint: Checkpoint,
) -> Found:
    """Descents in balls for some inputs, then walks from what they found."""
    if not len(at):
        return found
    rest, steps = asked.take(at), 4 * config.steps
    best = Found(found.distance[at], found.witness[at])
    best = best.nearer(ladder_attack(seen, rest, steps, config.seed, checkpoint))
    for _ in range(ROUNDS):
        best = smaller_attack(seen, rest, best, 2 * config.steps, checkpoint)
    best = best.nearer(boundary_attack(seen, rest, config, known=best, checkpoint=checkpoint))
    whole = Found(np.full(len(found.distance), np.inf), found.witness.copy())
    whole.distance[at], whole.witness[at] = best.distance, best.witness
    return found.nearer(whole)
