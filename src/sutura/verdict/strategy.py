"""Which search decides a problem: inputs are split where few of them vary, neurons where many do."""

from __future__ import annotations

import numpy as np

from sutura.bounds.program import Elementwise, MaxOf, Program
from sutura.errors import MismatchError
from sutura.journal import Track
from sutura.progress import Listener, silent
from sutura.property.spec import Property
from sutura.verdict import search
from sutura.verdict.outcome import Outcome
from sutura.verdict.replay import Runner
from sutura.verdict.search import VerifyConfig

FEW_INPUTS = 10
"""At most so many varying inputs are split: halving them all once already makes a thousand boxes."""


def decide(
    program: Program,
    runner: Runner,
    prop: Property,
    config: VerifyConfig | None = None,
    *,
    listen: Listener = silent,
    track: Track | None = None,
) -> Outcome:
    """Decide whether the network has the property. Proved is sound for every float32 execution.

    Raises MismatchError where the sizes do not fit, or a `track` is given to a search that keeps none.
    """
    if varying(prop) <= FEW_INPUTS or not bends(program):
        return search.decide(program, runner, prop, config, listen=listen, track=track)
    if track is not None:
        raise MismatchError(
            f"{prop.name} has {varying(prop)} varying inputs, so that neurons are split, which keeps no "
            f"journal: leave --journal out (it serves up to {FEW_INPUTS})"
        )
    # Imported here: it takes linear programming along, which a start-up without it need not wait for.
    from sutura.verdict.neuron_search import decide_by_neurons

    return decide_by_neurons(program, runner, prop, config, listen=listen)


def varying(prop: Property) -> int:
    """The most inputs that are more than one float32 number in a case."""
    hulls = (c.box.float32_hull() for c in prop.cases)
    return max((int(np.count_nonzero(low < high)) for low, high in hulls), default=0)


def bends(program: Program) -> bool:
    """Whether the program has neurons to split at all."""
    return any(isinstance(layer, Elementwise | MaxOf) for layer in program.layers)
