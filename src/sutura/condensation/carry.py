"""Proofs on a merged network that hold for the original: unsafe outputs widened by what merging changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from sutura.errors import MismatchError
from sutura.network.read import Loaded
from sutura.progress import Listener, silent
from sutura.property.spec import Case, Inequality, Property
from sutura.property.write import write
from sutura.verdict.difference import DiffConfig, Difference, diff
from sutura.verdict.outcome import Outcome, Proved
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify


@dataclass(frozen=True, slots=True)
class CarryConfig:
    """How the difference of the two networks is bounded, and how each of the two questions is verified."""

    difference: DiffConfig = field(default_factory=DiffConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)


@dataclass(frozen=True, slots=True, eq=False)
class Carry:
    """What is known of one property: on the merged network, and of the original through it.

    `merged` is the outcome on the merged network. Where that is a proof, `difference` tells the two networks
    apart on the property's boxes and `widened` is the outcome of what `carried` asks; else both are None.
    """

    name: str
    merged: Outcome
    difference: Difference | None
    widened: Outcome | None

    @property
    def over(self) -> bool:
        """Whether the proof carries over: the original has the property. False says nothing of it."""
        return self.widened is not None and isinstance(self.widened.verdict, Proved)


def carry(
    original: Loaded,
    merged: Loaded,
    prop: Property,
    config: CarryConfig | None = None,
    *,
    listen: Listener = silent,
) -> Carry:
    """Prove a property of the merged network, and see whether the proof carries over to the original.

    Sound for every float32 execution of both, as `verify` and `diff` are. Raises what these and `carried` do.
    """
    config = config or CarryConfig()
    found = verify(merged, prop, config.verify, listen=listen)
    if not isinstance(found.verdict, Proved):
        return Carry(prop.name, found, None, None)
    apart = diff(original, merged, prop, config.difference, listen=listen)
    widened = verify(merged, carried(prop, apart), config.verify, listen=listen)
    return Carry(prop.name, found, apart, widened)


def carried(prop: Property, difference: Difference) -> Property:
    """What to prove on the merged network so that the original has `prop`.

    `difference` is `diff(original, merged, prop)`: with low <= y - y' <= high, an unsafe y, sum a y <= b,
    means sum a y' <= b + sum max(-a low, -a high). Exact over the rationals; sound for what both proofs are
    sound for. Raises MismatchError where the difference is of another number of outputs or not finite.
    """
    ends = list(zip(difference.low.tolist(), difference.high.tolist(), strict=True))
    if len(ends) != prop.outputs:
        raise MismatchError(f"{prop.name} has {prop.outputs} outputs; the difference bounds {len(ends)}")
    if not all(abs(end) < float("inf") for pair in ends for end in pair):
        raise MismatchError(f"the difference on {prop.name} is not bounded; give a smaller region")
    exact = [(Fraction(low), Fraction(high)) for low, high in ends]
    cases = tuple(
        Case(case.box, tuple(tuple(_widened(i, exact) for i in unsafe) for unsafe in case.unsafe))
        for case in prop.cases
    )
    return Property(
        f"{prop.name} carried", prop.inputs, prop.outputs, cases, write(prop.inputs, prop.outputs, cases)
    )


def _widened(unsafe: Inequality, ends: list[tuple[Fraction, Fraction]]) -> Inequality:
    room = sum((max(-a * ends[i][0], -a * ends[i][1]) for i, a in unsafe.terms), Fraction(0))
    return Inequality(unsafe.terms, unsafe.bound + room, unsafe.strict)
