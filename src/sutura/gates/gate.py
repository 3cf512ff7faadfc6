"""Gates: what happens to a network's values in each region. Row 0 of every table does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from sutura.bounds.lower import Hold
from sutura.gates.cells import Box32
from sutura.gates.safe_set import SafeSet


@dataclass(frozen=True, slots=True, eq=False)
class OutputGate:
    """Outputs are moved to the nearest point of the safe set, or to `constant` where arithmetic fails.

    With a `box`, those of inputs in the box alone, wherever the dispatcher may put the gate to work.
    """

    safe: SafeSet
    constant: Float32[np.ndarray, " n"]
    box: Box32 | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NeuronGate:
    """Hidden neurons are held at constants (Dong et al., Towards Repairing Neural Networks Correctly)."""

    holds: Mapping[str, Hold]

    @property
    def neurons(self) -> int:
        """How many neurons are held."""
        return sum(int(hold.mask.sum()) for hold in self.holds.values())


Gate = OutputGate | NeuronGate
