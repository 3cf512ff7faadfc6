"""What a recipe may say: the stages, and the options that each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["flag", "path", "value"]
Value = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its flag, what it takes, its default (None: none), whether it may be repeated."""

    flag: str
    kind: Kind
    default: Value | None
    repeated: bool = False


Catalogue = Mapping[str, Mapping[str, Option]]
"""Stage -> option name (as in TOML: without dashes before it) -> option."""


@dataclass(frozen=True, slots=True)
class Role:
    """How a stage takes part in the chain.

    `changes`: it gives a new network. `reads`: what stands before its options: the network now, the
    properties, or the network before its last change. `settled`: exit codes after which the chain goes on.
    """

    changes: bool
    reads: tuple[Literal["network", "properties", "original", "before"], ...]
    settled: frozenset[int] = frozenset({0})


ROLES: Mapping[str, Role] = {
    "calibrate": Role(True, ("network",)),
    "compress": Role(True, ("network",)),
    "shift": Role(True, ("network",)),
    "condense": Role(True, ("network",)),
    "repair": Role(True, ("network", "properties"), frozenset({0, 3})),
    "verify": Role(False, ("network", "properties"), frozenset({0, 1, 3})),
    "diff": Role(False, ("original", "network"), frozenset({0, 1, 3})),
    "evaluate": Role(False, ("before", "network", "properties"), frozenset({0, 1})),
    "risk": Role(False, ("network",), frozenset({0, 3})),
}
"""Stage -> its role."""

RESERVED = frozenset(
    {
        "out",
        "json",
        "journal",
        "resume",
        "safetensors",
        "checkpoint",
        "network",
        "packed",
        "sarif",
        "cluster",
        "external-data",
    }
)
"""Options that the chain itself decides."""
