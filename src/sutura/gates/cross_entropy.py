"""The published loss at a counterexample: cross entropy that pushes the outputs the property is about.

Property 2 of ACAS Xu has -CE(y, 0), property 7 CE(y, 3) + CE(y, 4), property 8 -CE(y, 0) - CE(y, 1), a
robustness property CE(y, label). One rule gives all of them: add up what every unsafe inequality would have
each output do to be violated, and push those outputs that are asked for most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from sutura.property.spec import Conjunction


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """By output: +1 to raise its score, -1 to lower it, 0 to leave it; `relative`: against the others."""

    direction: Float64[np.ndarray, " m"]
    relative: bool


def push(unsafe: Iterable[Conjunction], outputs: int) -> Push:
    """What the unsafe conjunctions ask for; `relative` where all of them compare outputs."""
    asked = np.zeros(outputs)
    relative = True
    for inequality in (i for conjunction in unsafe for i in conjunction):
        relative &= len(inequality.terms) > 1
        for index, coefficient in inequality.terms:
            asked[index] += np.sign(float(coefficient))
    most = abs(asked).max(initial=0.0)
    return Push(np.where(abs(asked) == most, np.sign(asked), 0.0), relative)


def loss_gradient(wanted: Push, output: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    """d(loss)/d(output): of the sum of CE(y, i) over raised outputs i less that over lowered ones, with
    CE(y, i) = -log softmax(y)_i; or of the negative score itself where an output is held to a number."""
    if not wanted.relative:
        return -wanted.direction
    shares = np.exp(output - output.max())
    return wanted.direction.sum() * shares / shares.sum() - wanted.direction
