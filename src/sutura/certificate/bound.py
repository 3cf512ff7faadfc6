"""Bounds of a network over boxes that hold for every float32 execution (CROWN with injected rounding noise).

Each linear layer is taken as z = W x + b + delta, where x is what the layer before really computed and
delta is its own rounding, |delta| <= rho = gamma32(k) (|W| m + |b|) + underflow with m >= |x| over the
whole box. A lower bound of c . z is carried backward through the layers: for all executions and all inputs
of the box

    c . z  >=  constant + (sum over the values v still open of A_v . v) .

A linear layer turns A into A W and costs |A| rho; an activation is replaced by the line that is on the safe
side of it. This program's own float64 rounding is charged in the same place: computing A W loses at most
gamma64(N) |A||W| per entry, which is worth at most gamma64(N) |A| (|W| m); products with biases, intercepts
and slopes lose gamma64(N) of their absolute parts. N exceeds the number of roundings that any term of any
sum passes. Bounds that come out infinite or not-a-number, or crossed, make their box unproved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sutura.certificate.layers import (
    Clamp,
    Dense,
    Float,
    Layer,
    Leaky,
    Peak,
    Pin,
    Program,
    Scale,
    Select,
    Squash,
    Sum,
)
from sutura.certificate.lines import (
    Lines,
    bends,
    clamp_interval,
    clamp_lines,
    constant_lines,
    leaky_lines,
    peak_interval,
    squash_interval,
)
from sutura.certificate.rounding import FUSED, OVERFLOW, SLACK, TINY, gamma32, gamma64
from sutura.certificate.wire import Array


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Closed boxes of float32 inputs (as float64 numbers), and the row that serves each."""

    lower: Float
    upper: Float
    rows: Array


@dataclass(frozen=True, slots=True, eq=False)
class Charge:
    """What a layer costs when A passes it, per box and neuron: A . mean + |A| . bias is added to the
    constant.

    `straight` and `crossed` turn A into A * straight + |A| * crossed; None where the layer does not bend.
    """

    bias: Float
    mean: Float | None = None
    straight: Float | None = None
    crossed: Float | None = None


@dataclass(slots=True)
class Sweep:
    """Bounds of all values of a program over some boxes, filled in layer by layer.

    `lower`, `upper` enclose what is computed; `mass` bounds the absolute parts that a fused runtime might
    add up in its place, in sums of `roundings` roundings; `failed` marks boxes that nothing is claimed of.
    """

    program: Program
    boxes: Boxes
    noise64: float
    lower: list[Float]
    upper: list[Float]
    mass: list[Float]
    roundings: list[int]
    failed: Array
    charges: list[Charge] = field(default_factory=list)


def sweep(program: Program, boxes: Boxes) -> Sweep:
    """Bounds of every value over every box, in the order of the layers."""
    largest = np.maximum(np.abs(boxes.lower), np.abs(boxes.upper))
    noise = gamma64(max(program.sizes) + 8 * len(program.layers) + 64)
    failed = np.logical_not(np.all(np.isfinite(largest) & (boxes.lower <= boxes.upper), axis=1))
    state = Sweep(program, boxes, noise, [boxes.lower], [boxes.upper], [largest], [0], failed)
    with np.errstate(all="ignore"):  # what overflows is caught as a failed box
        for layer in program.layers:
            _advance(state, layer)
    return state


def lowest(state: Sweep, start: dict[int, Float], constant: Float, box: Array) -> tuple[Float, Float]:
    """Lower bounds of constant + sum of A_v . v for rows of coefficients `start`, each over its own box.

    The constant must already pay for its own rounding. Returns the bounds, and |A| times the half widths of
    the input: how much each input dimension matters to each row.
    """
    open_values = dict(start)
    for at in range(len(state.program.layers), 0, -1):
        A = open_values.pop(at, None)
        if A is not None:
            constant = constant + _pay(state, at, A, box)
            _pass_on(state, at, A, box, open_values)
    if 0 not in open_values:
        return constant - VANISHING, np.zeros((len(box), state.program.sizes[0]))
    A0 = open_values[0]
    lower, upper = state.lower[0][box], state.upper[0][box]
    middle = (lower + upper) * 0.5
    radius = np.maximum(upper - middle, middle - lower) * SLACK
    effect = np.abs(A0) * radius
    charge = state.noise64 * SLACK * _dot(np.abs(A0), np.abs(middle) + radius)
    reach = effect.sum(axis=1) * (1 + state.noise64 * SLACK)
    return constant + _dot(A0, middle) - reach - charge - VANISHING, effect


def magnitude(state: Sweep, at: int) -> Float:
    """A bound of the absolute value of what is computed, per box and neuron."""
    return np.maximum(np.abs(state.lower[at]), np.abs(state.upper[at]))


def _advance(state: Sweep, layer: Layer) -> None:
    match layer:
        case Dense():
            _dense(state, layer)
        case Scale():
            _scale(state, layer)
        case Sum():
            _sum(state, layer)
        case Select():
            _select(state, layer)
        case Pin():
            _pin(state, layer)
        case _:
            _activation(state, layer)
    lower, upper = _flushed(state.lower[-1], state.upper[-1])
    state.lower[-1], state.upper[-1] = lower, upper
    sound = np.isfinite(lower) & np.isfinite(upper) & (lower <= upper)
    state.failed = state.failed | ~sound.all(axis=1)


def _flushed(lower: Float, upper: Float) -> tuple[Float, Float]:
    """Subnormal results may also come out as zero."""
    lower = np.where((lower > 0) & (lower < TINY), 0.0, lower)
    return lower, np.where((upper < 0) & (upper > -TINY), 0.0, upper)


def _linear(state: Sweep, center: Float, radius: Float, mass: Float, rho: Float) -> Charge:
    """Appends the interval center +- (radius + rho), and the charge of a layer with these noises."""
    charge = (rho + state.noise64 * mass) * SLACK
    reach = (radius + charge) * SLACK
    state.lower.append(center - reach)
    state.upper.append(center + reach)
    state.failed = state.failed | ~((mass + rho) * SLACK < OVERFLOW).all(axis=1)
    return Charge(-charge)


def _finish(state: Sweep, charge: Charge, mass: Float | None, roundings: int) -> None:
    state.charges.append(charge)
    state.mass.append(magnitude(state, len(state.lower) - 1) if mass is None else mass)
    state.roundings.append(roundings)


def _middle(state: Sweep, at: int) -> tuple[Float, Float, Float]:
    lower, upper = state.lower[at], state.upper[at]
    middle = (lower + upper) * 0.5
    return (
        middle,
        np.maximum(upper - middle, middle - lower) * SLACK,
        np.maximum(np.abs(lower), np.abs(upper)),
    )


def _underflow(products: int, weight: float, value: Float) -> Float:
    """Each of the products and sums may lose a subnormal number, as may each operand that is read as zero."""
    return (4 * products + 4) * TINY * (1 + weight + value.max(axis=1, keepdims=True))


def _dense(state: Sweep, layer: Dense) -> None:
    middle, radius, m = _middle(state, layer.source)
    largest = float(layer.absolute.max(initial=0.0))
    mass = (m @ layer.absolute.T + np.abs(layer.bias)) * SLACK
    rho = gamma32(layer.roundings) * mass + _underflow(len(layer.weight.T), largest, m)
    charge = _linear(state, middle @ layer.weight.T + layer.bias, radius @ layer.absolute.T, mass, rho)
    _finish(state, charge, mass, layer.roundings)


def _scale(state: Sweep, layer: Scale) -> None:
    """One operation alone rounds a few times; folded into the sum before it, it shares that sum's roundings.

    If that sum has error gamma32(k) of its parts either way, the folded one strays by at most
    gamma32(FUSED) of them more, and by gamma32(k + FUSED) of the shift.
    """
    middle, radius, m = _middle(state, layer.source)
    factor, before = np.abs(layer.factor), state.mass[layer.source]
    mass = (factor * before + layer.mass) * SLACK
    rho = gamma32(FUSED) * factor * before + gamma32(state.roundings[layer.source] + FUSED) * layer.mass
    rho = rho + _underflow(1, float(factor.max()), m)
    charge = _linear(state, middle * layer.factor + layer.shift, radius * factor, mass, rho)
    _finish(state, charge, mass, state.roundings[layer.source] + FUSED)


def _sum(state: Sweep, layer: Sum) -> None:
    """Added alone, or as one more term of the sum on either side."""
    a, ra, ma = _middle(state, layer.left)
    b, rb, mb = _middle(state, layer.right)
    parts = state.mass[layer.left] + state.mass[layer.right]
    roundings = state.roundings[layer.left] + state.roundings[layer.right] + 3
    rho = gamma32(3) * parts + gamma32(roundings) * (ma + mb) + _underflow(1, 1.0, ma + mb)
    charge = _linear(state, a + layer.sign * b, ra + rb, parts, rho)
    _finish(state, charge, parts * SLACK, roundings)


def _select(state: Sweep, layer: Select) -> None:
    lower, upper, mass = (
        _picked([values[at] for at in layer.sources], layer)
        for values in (state.lower, state.upper, state.mass)
    )
    state.lower.append(lower)
    state.upper.append(upper)
    mass = np.abs(mass)
    _finish(state, Charge(-state.noise64 * mass), mass, max(state.roundings[at] for at in layer.sources))


def _picked(parts: list[Float], layer: Select) -> Float:
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return np.where(layer.index >= 0, joined[:, layer.index], layer.fill)


def _pin(state: Sweep, layer: Pin) -> None:
    mask, value = layer.mask[state.boxes.rows], layer.value[state.boxes.rows]
    fixed = np.where(mask, value, 0.0)
    state.lower.append(np.where(mask, value, state.lower[layer.source]))
    state.upper.append(np.where(mask, value, state.upper[layer.source]))
    charge = Charge(-state.noise64 * np.abs(fixed), fixed, np.where(mask, 0.0, 1.0))
    _finish(state, charge, None, 0)


def _activation(state: Sweep, layer: Leaky | Clamp | Squash | Peak) -> None:
    _refine(state, layer)
    L, U = state.lower[layer.source], state.upper[layer.source]
    m = magnitude(state, layer.source)
    match layer:
        case Leaky():
            lines, interval = leaky_lines(layer.slope, L, U), clamp_interval(layer, L, U)
        case Clamp():
            lines, interval = clamp_lines(layer.low, layer.high, L, U), clamp_interval(layer, L, U)
        case Squash():
            interval = squash_interval(layer, L, U)
            lines = constant_lines(*interval)
        case Peak():
            interval = peak_interval(layer, L, U)
            lines = constant_lines(*interval)
    state.lower.append(interval[0])
    state.upper.append(interval[1])
    leak = gamma32(2) * m if isinstance(layer, Leaky) and 0 < layer.slope < 1 else 0.0
    carried = 0.0 if isinstance(layer, Squash | Peak) else m
    noise = leak + state.noise64 * (carried + np.abs(lines.t0) + np.abs(lines.t1)) + 2 * TINY
    _finish(state, _bent(lines, noise * SLACK, straight=not isinstance(layer, Squash | Peak)), None, 0)


def _bent(lines: Lines, noise: Float, straight: bool) -> Charge:
    """A+ takes the lower line and A- the upper one: half their sum goes with A, half their difference with
    |A|.
    """
    bias, mean = (lines.t0 - lines.t1) * 0.5 - noise, (lines.t0 + lines.t1) * 0.5
    if not straight:
        return Charge(bias, mean)
    return Charge(bias, mean, (lines.below + lines.above) * 0.5, (lines.below - lines.above) * 0.5)


def _refine(state: Sweep, layer: Leaky | Clamp | Squash | Peak) -> None:
    """Tightens, by a backward pass, the interval of those neurons that the interval alone leaves bent."""
    at = layer.source
    if at == 0:
        return
    box, neuron = np.nonzero(bends(layer, state.lower[at], state.upper[at]) & ~state.failed[:, None])
    size = max(64, BLOCK // max(state.program.sizes))
    lower, upper = state.lower[at].copy(), state.upper[at].copy()
    for first in range(0, len(box), size):
        boxes, neurons = box[first : first + size], neuron[first : first + size]
        down = _neuron_bound(state, at, boxes, neurons, 1.0)
        up = -_neuron_bound(state, at, boxes, neurons, -1.0)
        tighter = np.isfinite(down) & (down > lower[boxes, neurons])
        lower[boxes[tighter], neurons[tighter]] = down[tighter]
        tighter = np.isfinite(up) & (up < upper[boxes, neurons])
        upper[boxes[tighter], neurons[tighter]] = up[tighter]
    state.lower[at], state.upper[at] = lower, upper
    state.failed = state.failed | ~(lower <= upper).all(axis=1)


def _neuron_bound(state: Sweep, at: int, box: Array, neuron: Array, sign: float) -> Float:
    layer = state.program.layers[at - 1]
    if isinstance(layer, Dense):
        constant = sign * layer.bias[neuron] + state.charges[at - 1].bias[box, neuron]
        return lowest(state, {layer.source: sign * layer.weight[neuron]}, constant, box)[0]
    A = np.zeros((len(box), state.program.sizes[at]))
    A[np.arange(len(box)), neuron] = sign
    return lowest(state, {at: A}, np.zeros(len(box)), box)[0]


def _pay(state: Sweep, at: int, A: Float, box: Array) -> Float:
    layer, charge = state.program.layers[at - 1], state.charges[at - 1]
    total = _dot(np.abs(A), charge.bias[box])
    if charge.mean is not None:
        total += _dot(A, charge.mean[box])
    if isinstance(layer, Dense):
        total += A @ layer.bias
    elif isinstance(layer, Scale):
        total += A @ layer.shift
    elif isinstance(layer, Select) and layer.fill:
        total += A[:, layer.index < 0].sum(axis=1) * layer.fill
    return total


def _pass_on(state: Sweep, at: int, A: Float, box: Array, open_values: dict[int, Float]) -> None:
    layer, charge = state.program.layers[at - 1], state.charges[at - 1]
    match layer:
        case Dense():
            _open(open_values, layer.source, A @ layer.weight)
        case Scale():
            _open(open_values, layer.source, A * layer.factor)
        case Sum():
            _open(open_values, layer.left, A)
            _open(open_values, layer.right, layer.sign * A)
        case Select():
            _scatter(state, layer, A, open_values)
        case Squash() | Peak():
            pass
        case _:
            passed = A * _given(charge.straight)[box]
            if charge.crossed is not None:
                passed += np.abs(A) * charge.crossed[box]
            _open(open_values, layer.source, passed)


def _scatter(state: Sweep, layer: Select, A: Float, open_values: dict[int, Float]) -> None:
    sizes = [state.program.sizes[at] for at in layer.sources]
    joined = np.zeros((len(A), sum(sizes)))
    kept = layer.index >= 0
    if len(np.unique(layer.index[kept])) == int(kept.sum()):
        joined[:, layer.index[kept]] = A[:, kept]
    else:
        for column, target in zip(np.flatnonzero(kept), layer.index[kept], strict=True):
            joined[:, target] += A[:, column]
    for source, part in zip(layer.sources, np.split(joined, np.cumsum(sizes)[:-1], axis=1), strict=True):
        _open(open_values, source, part)


def _open(open_values: dict[int, Float], at: int, A: Float) -> None:
    open_values[at] = open_values[at] + A if at in open_values else A


def _given(value: Float | None) -> Float:
    assert value is not None
    return value


def _dot(a: Float, b: Float) -> Float:
    """Row by row inner products."""
    found: np.ndarray[Any, np.dtype[np.float64]] = np.einsum("rn,rn->r", a, b)
    return found


BLOCK = 1 << 14  # numbers in one array of a backward pass: what fits a cache
VANISHING = 2.0**-900  # more than float64 underflow can amount to
