"""What is known of a property: Proved, Violated (with a witness) or Unknown (with the reason)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from sutura.certificate.claim import Claim, claim
from sutura.display import Displayed


@dataclass(frozen=True, slots=True, eq=False)
class Witness:
    """A float32 input inside the property's box, and the unsafe output that ONNX Runtime gave for it."""

    input: Float32[np.ndarray, " n"]
    output: Float32[np.ndarray, " m"]
    case: int


@dataclass(frozen=True, slots=True)
class Proved:
    """Holds for every float32 execution: any order of summation, fused or not, any batch and thread count.

    `claim` says how strong that is (see `sutura.certificate.claim`), and everything that it rests on.
    """

    claim: Claim = field(default_factory=claim)


@dataclass(frozen=True, slots=True)
class Violated:
    """Replayed in ONNX Runtime: this input gives an unsafe output, exactly."""

    witness: Witness


@dataclass(frozen=True, slots=True)
class Unknown:
    """Neither shown; `reason` says what stopped the search."""

    reason: str


Verdict = Proved | Violated | Unknown


@dataclass(frozen=True, slots=True)
class Account:
    """How a verdict was reached: boxes bounded, share of the property's volume proved safe (0 to 1), seconds.

    `bound` is a certified lower bound of how far what is left open stays from unsafe, in units of the outputs
    (negative; None where nothing is left open or nothing is known), `batch` how many boxes were bounded
    together in the end: fewer where memory ran out.
    """

    boxes: int
    proved_share: float
    seconds: float
    bound: float | None = None
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome(Displayed):
    """A verdict and its account."""

    verdict: Verdict
    account: Account
