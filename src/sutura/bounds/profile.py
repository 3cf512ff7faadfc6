"""Execution profiles: how the machine that runs the network rounds, as a change of the program to bound.

A sum of n products in a profile errs by at most

    [ (1 + u_in)^2 (1 + gamma_n(u_acc)) - 1 ] (|W||x| + |b|)        (2)

where factors are rounded to relative error u_in before they are multiplied, and sums have unit roundoff u_acc
(docs/guarantee.md). `under` writes that as a number of float32 roundings, so that every bound method and
search takes profiles without knowing of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sutura.bounds.program import Affine, Program
from sutura.bounds.rounding import FLOAT32_ANY_ORDER, gamma
from sutura.errors import NetworkError


@dataclass(frozen=True, slots=True)
class Execution:
    """An execution profile: unit roundoffs of the factors of products and of sums, in any order."""

    name: str
    factor: float
    unit: float


EXECUTIONS = {
    "reals": Execution("reals", 0.0, 0.0),
    "float32-any-order": Execution("float32-any-order", 0.0, FLOAT32_ANY_ORDER.unit),
    "float32-chopping": Execution("float32-chopping", 0.0, 2.0**-23),
    "tf32": Execution("tf32", 2.0**-10, 2.0**-23),
}
"""The profiles that `verify` knows; the default is float32-any-order. TF32 may cut factors as well."""

ROUNDED_ONCE = frozenset(("LeakyRelu", "Square", "Reciprocal", "Exp", "Softmax", "Multiply", "Divide"))
"""Operators whose bounds count on round to nearest."""


def under(program: Program, execution: Execution, operators: Iterable[str] = ()) -> Program:
    """The program whose float32 bounds are bounds of every execution in the profile; `operators` are the
    network's, by the names of `network.ops`.

    Sound for all executions in the profile, by (2). Raises NetworkError where an operator has no bound in it.
    """
    if execution == EXECUTIONS["float32-any-order"]:
        return program
    unknown = sorted(ROUNDED_ONCE & set(operators)) if execution.name != "reals" else []
    if unknown:
        raise NetworkError(
            f"the profile {execution.name} has no bound for {', '.join(unknown)}; use float32-any-order"
        )
    layers = (replaced(layer, execution) if isinstance(layer, Affine) else layer for layer in program.layers)
    return replace(program, layers=tuple(layers))


def replaced(layer: Affine, execution: Execution) -> Affine:
    """The layer with as many float32 roundings as its error in the profile amounts to."""
    if not layer.roundings:
        return layer
    if not execution.unit:
        return replace(layer, roundings=0, flush=0.0)
    relative = (1.0 + execution.factor) ** 2 * (1.0 + gamma(layer.roundings, execution.unit)) - 1.0
    if not math.isfinite(relative):
        return replace(layer, roundings=1 << 24)
    # gamma_k(u) >= relative as soon as k u >= relative / (1 + relative); one more pays for this very sum.
    count = math.ceil(relative / (1.0 + relative) / FLOAT32_ANY_ORDER.unit * (1.0 + 2.0**-40)) + 1
    return replace(layer, roundings=count)
