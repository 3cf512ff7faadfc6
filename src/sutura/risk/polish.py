"""The last part of a minimal-norm attack: slide along the boundary from the nearest point known.

A network of ReLUs is linear around almost every point, so the nearest point at risk there has a closed form
(`crossing`); how far on the way to it the network stays linear is tried. Upper bounds only.
"""

from __future__ import annotations

import numpy as np

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.risk.ball import crossing
from sutura.risk.boundary import Asked, Found, confirmed
from sutura.risk.model import Model, logits
from sutura.risk.safety import at_risk, margins, seeds

ROUNDS = 8
SHARES = np.array([1.0, 0.7, 0.4, 0.2, 0.1, 0.03])
"""Parts of the way that are tried, each as it is and a little farther from the centre."""

OUTWARD = np.array([1.0 + 1e-6, 1.0 + 1e-4, 1.001, 1.005])
PASSES = ROUNDS * (1 + len(SHARES) * len(OUTWARD))
"""Forward passes of an input."""

ABOUT = 1e-7
"""Share of the way beyond the linearised boundary that is aimed at."""


def polished(seen: Model, asked: Asked, found: Found, checkpoint: Checkpoint = no_checkpoint) -> Found:
    """What was found, or nearer points at risk; replayed in ONNX Runtime."""
    assert seen.slopes is not None
    known = np.flatnonzero(np.isfinite(found.distance) & (found.distance > 0))
    if not len(known):
        return found
    rows, tries = asked.take(known), len(SHARES) * len(OUTWARD)
    each = rows.take(np.repeat(np.arange(len(known)), tries))
    x, record = found.witness[known].astype(np.float64), found.distance[known]
    for _ in range(ROUNDS):
        checkpoint()
        outputs, pull = seen.slopes(x)
        margin = margins(rows.risk, outputs, rows.label)
        way = margin.argmin(axis=1)
        slope = np.nan_to_num(pull(seeds(rows.risk, outputs, rows.label, way)))
        value = margin[np.arange(len(x)), way]
        need = (value - (slope * (x - rows.centre)).sum(axis=1)) * (1.0 + ABOUT)
        target, _ = crossing(rows.domain, rows.norm, rows.centre, slope, need)
        steps = (x - rows.centre)[:, None] + SHARES[:, None] * (target - x)[:, None]
        tried = rows.centre[:, None, None] + OUTWARD[:, None] * steps[:, :, None]
        tried = np.clip(tried.reshape(len(each.label), -1), rows.domain.low, rows.domain.high)
        far = np.where(at_risk(rows.risk, logits(seen, tried), each.label), each.far(tried), np.inf)
        best = far.reshape(-1, tries).argmin(axis=1) + tries * np.arange(len(x))
        better = far[best] < record
        if not better.any():
            break
        x = np.where(better[:, None], tried[best], x)
        record = np.where(better, far[best], record)
    return found.nearer(confirmed(seen.run, asked, known, x, record))
