"""repair(): a network and its properties to a repaired network, by the method that the config names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sutura.gates.deliver import Repair
from sutura.gates.mend import ClampConfig, RepairConfig, clamp, mend
from sutura.gates.minimal import MinimalConfig, minimal
from sutura.gates.nrepair import NRepairConfig, nrepair
from sutura.gates.problem import Problem, problem
from sutura.journal import Track
from sutura.network.read import Loaded
from sutura.progress import Listener, silent
from sutura.property.spec import Property

Config = RepairConfig | NRepairConfig | MinimalConfig | ClampConfig


def repair(
    loaded: Loaded,
    properties: Sequence[Property],
    config: Config | None = None,
    *,
    listen: Listener = silent,
    track: Track | None = None,
) -> Repair:
    """A network repaired by the method of `config`, RepairConfig where none is given.

    With RepairConfig and ClampConfig it provably has all the properties, equals the loaded one outside their
    boxes, and comes with its certificate. The published methods promise less: where they leave something
    unproved there is no certificate, and `note` says what. The search goes on from what `track` of a journal
    holds of it. Raises MismatchError where sizes do not fit or no
    property is given, and RepairError where no output satisfies the properties of a region (naming them and
    the region), or where the checker refuses what was proved.
    """
    return mended(problem(loaded, properties, track), config or RepairConfig(), listen)


def mended(asked: Problem, config: Config, listen: Listener = silent) -> Repair:
    """The same for a problem made ready before, so that nothing is lowered twice."""
    return METHODS[type(config)](asked, config, listen)


METHODS: Mapping[type, Callable[[Problem, Any, Listener], Repair]] = {
    RepairConfig: mend,
    NRepairConfig: nrepair,
    MinimalConfig: minimal,
    ClampConfig: clamp,
}
