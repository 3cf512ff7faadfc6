"""Norm balls inside an input domain: distances, the regions that hold them, and their extreme points.

Lengths are in units of the domain's `scale`, one unit an input: inputs of unlike physical units may share a
ball only because each is measured against its own scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64

from sutura.bounds.region import Ball, Region
from sutura.errors import DataError

Norm = Literal["l1", "l2", "linf"]
Points = Float64[np.ndarray, "batch n"]
Column = Float64[np.ndarray, " batch"]
Steps = Float64[np.ndarray, "*batch n"]

OUTWARD = 2.0**-46
"""Relative margin by which region ends move out before they are rounded outward to float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """All inputs there are: low <= x <= high, ends float32 numbers held in float64, and the unit of each."""

    low: Float64[np.ndarray, " n"]
    high: Float64[np.ndarray, " n"]
    scale: Float64[np.ndarray, " n"]

    @property
    def widest(self) -> float:
        """The widest side in units."""
        return float(((self.high - self.low) / self.scale).max())


def domain(
    low: Float[np.ndarray, " n"], high: Float[np.ndarray, " n"], *, units: Literal["width", "raw"] = "width"
) -> Domain:
    """The domain with these ends; `units` measures each input by its width there, or as it comes.

    An input of no width is measured as it comes: it never moves. Raises DataError where an end is not finite
    or the domain is empty.
    """
    ends = np.asarray(low, np.float32).ravel(), np.asarray(high, np.float32).ravel()
    if ends[0].shape != ends[1].shape:
        raise DataError(
            f"the domain has {ends[0].size} lower and {ends[1].size} upper ends; give one of each"
        )
    bad = np.flatnonzero(~(np.isfinite(ends[0]) & np.isfinite(ends[1]) & (ends[0] <= ends[1])))
    if len(bad):
        i = int(bad[0])
        raise DataError(
            f"the domain of input {i} is {ends[0][i]:.9g} to {ends[1][i]:.9g}, which holds nothing"
        )
    least, most = ends[0].astype(np.float64), ends[1].astype(np.float64)
    width = most - least if units == "width" else np.ones_like(least)
    return Domain(least, most, np.where(width > 0, width, 1.0))


def distance(domain: Domain, norm: Norm, x: Points, centre: Points) -> Column:
    """Distance of each point from its centre, in units."""
    steps = x - centre
    # In place: polls are large, and fresh memory costs more than the arithmetic.
    np.abs(steps, out=steps)
    steps /= domain.scale
    return LENGTHS[norm](steps)


def dual_length(domain: Domain, norm: Norm, slopes: Steps) -> Column:
    """Fastest change of a linear function for a unit of distance."""
    return LENGTHS[DUAL[norm]](abs(slopes) * domain.scale)


def regions(domain: Domain, norm: Norm, centre: Points, radius: Column) -> Region:
    """What is known to hold every float32 point of the domain within `radius` of each centre.

    Box ends are rounded outward. For L1 and L2 the ball goes with its box.
    """
    reach = radius[:, None] * domain.scale
    spare = OUTWARD * (abs(centre) + reach)
    low = np.maximum(_down(centre - reach - spare), domain.low)
    high = np.minimum(-_down(-(centre + reach + spare)), domain.high)
    ball = None if norm == "linf" else Ball(norm, centre, radius * (1.0 + OUTWARD), domain.scale)
    return Region(low, high, ball)


def _down(values: Points) -> Points:
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float64)


def inside(domain: Domain, x: Points) -> Points:
    """The nearest points of the domain that are float32 numbers."""
    return np.clip(x, domain.low, domain.high).astype(np.float32).astype(np.float64)


def extreme(domain: Domain, norm: Norm, centre: Points, slopes: Points, radius: Column) -> Points:
    """The point of each ball, cut to the domain, where slopes @ x is least (an estimate: float64)."""
    weight, room = abs(slopes) * domain.scale, _room(domain, centre, slopes)
    return centre + _moved(domain, slopes, MOVES[norm](weight, room, radius))


def crossing(
    domain: Domain, norm: Norm, centre: Points, slopes: Points, need: Column
) -> tuple[Points, Bool[np.ndarray, " batch"]]:
    """The point of the domain nearest to each centre where slopes @ (x - centre) <= -need (an estimate).

    Where the domain has none: the point where slopes @ x is least, and False.
    """
    weight, room = abs(slopes) * domain.scale, _room(domain, centre, slopes)
    most = (weight * room).sum(axis=1)
    return centre + _moved(
        domain, slopes, CROSSINGS[norm](weight, room, np.clip(need, 0.0, most))
    ), need <= most


def project(domain: Domain, norm: Norm, x: Points, centre: Points, radius: Column) -> Points:
    """Points moved into each ball and the domain: the nearest ones for Linf, along the ray for L1 and L2."""
    x = np.clip(x, domain.low, domain.high)
    if norm == "linf":
        reach = radius[:, None] * domain.scale
        return np.clip(x, centre - reach, centre + reach)
    far = distance(domain, norm, x, centre)
    share = np.minimum(1.0, radius / np.where(far > 0, far, 1.0))
    return centre + share[:, None] * (x - centre)


def _room(domain: Domain, centre: Points, slopes: Points) -> Points:
    """How far each input can move downhill, in units."""
    return np.where(slopes > 0, centre - domain.low, domain.high - centre) / domain.scale


def _moved(domain: Domain, slopes: Points, steps: Points) -> Points:
    return -np.sign(slopes) * steps * domain.scale


def _linf_move(weight: Points, room: Points, radius: Column) -> Points:
    return np.minimum(radius[:, None], room)


def _l1_move(weight: Points, room: Points, radius: Column) -> Points:
    """Spend the budget on the steepest inputs first."""
    order = np.argsort(-weight, axis=1, kind="stable")
    sorted_room = np.take_along_axis(room, order, axis=1)
    before = np.cumsum(sorted_room, axis=1) - sorted_room
    return _unsorted(np.clip(radius[:, None] - before, 0.0, sorted_room), order)


def _l2_move(weight: Points, room: Points, radius: Column) -> Points:
    """Steps min(t weight, room) with the t that gives the radius: a quadratic between its breakpoints."""
    return np.minimum(_rate(weight, room, weight * weight, room * room, radius * radius, root=True), room)


def _linf_crossing(weight: Points, room: Points, need: Column) -> Points:
    return np.minimum(_rate(np.ones_like(weight), room, weight, weight * room, need), room)


def _l2_crossing(weight: Points, room: Points, need: Column) -> Points:
    return np.minimum(_rate(weight, room, weight * weight, weight * room, need), room)


def _l1_crossing(weight: Points, room: Points, need: Column) -> Points:
    order = np.argsort(-weight, axis=1, kind="stable")
    slope, limit = np.take_along_axis(weight, order, axis=1), np.take_along_axis(room, order, axis=1)
    gain = slope * limit
    before = np.cumsum(gain, axis=1) - gain
    steps = np.clip((need[:, None] - before) / np.where(slope > 0, slope, 1.0), 0.0, limit)
    return _unsorted(np.where(slope > 0, steps, 0.0), order)


def _rate(
    speed: Points, room: Points, growth: Points, full: Points, need: Column, *, root: bool = False
) -> Points:
    """t * speed for the least t with sum(full where saturated) + t^k sum(growth elsewhere) >= need.

    An input saturates at t = room / speed; k is 2 where `root`, else 1. Inputs without speed never count.
    """
    moving = speed > 0
    stop = np.where(moving, room / np.where(moving, speed, 1.0), np.inf)
    order = np.argsort(stop, axis=1, kind="stable")
    stop = np.take_along_axis(stop, order, axis=1)
    rate = np.take_along_axis(np.where(moving, growth, 0.0), order, axis=1)
    done = np.take_along_axis(np.where(moving, full, 0.0), order, axis=1)
    left = np.cumsum(rate[:, ::-1], axis=1)[:, ::-1]
    gathered = np.cumsum(done, axis=1) - done
    reached = np.where(np.isfinite(stop), stop, 0.0)
    at_stop = gathered + (reached * reached if root else reached) * left
    first = np.minimum((at_stop < need[:, None]).sum(axis=1), speed.shape[1] - 1)[:, None]
    rest = need - np.take_along_axis(gathered, first, axis=1)[:, 0]
    pace = np.take_along_axis(left, first, axis=1)[:, 0]
    t = np.maximum(rest, 0.0) / np.where(pace > 0, pace, 1.0)
    t = np.where(pace > 0, np.sqrt(t) if root else t, 0.0)
    t = np.minimum(t, np.where(np.isfinite(stop), stop, 0.0).max(axis=1))
    return t[:, None] * speed


def _unsorted(values: Points, order: np.ndarray) -> Points:
    result = np.empty_like(values)
    np.put_along_axis(result, order, values, axis=1)
    return result


def _l1(steps: Steps) -> Column:
    return steps.sum(axis=-1)


def _l2(steps: Steps) -> Column:
    return np.sqrt((steps * steps).sum(axis=-1))


def _linf(steps: Steps) -> Column:
    return steps.max(axis=-1, initial=0.0)


LENGTHS: Mapping[Norm, Callable[[Steps], Column]] = {"l1": _l1, "l2": _l2, "linf": _linf}
DUAL: Mapping[Norm, Norm] = {"l1": "linf", "l2": "l2", "linf": "l1"}
MOVES = {"l1": _l1_move, "l2": _l2_move, "linf": _linf_move}
CROSSINGS = {"l1": _l1_crossing, "l2": _l2_crossing, "linf": _linf_crossing}
