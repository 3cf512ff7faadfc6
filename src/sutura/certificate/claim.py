"""Levels of claim: what is said of the running network, and everything that it rests on.

A level is a word from LEVELS; an assumption is a word from ASSUMPTIONS, which is also what certificates hold.
What a claim does not assume it holds for: any order of summation, fused or not, any batch, thread count and
optimisation level of the runtime.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """A level and the assumptions it rests on (words of the tables below); `runtime`: whose errors."""

    level: str
    assumes: tuple[str, ...]
    runtime: str = ""

    @property
    def meaning(self) -> str:
        """The level in one line."""
        return LEVELS[self.level]

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The assumptions in words."""
        of = f" (as measured on {self.runtime})" if self.runtime else ""
        return tuple(ASSUMPTIONS[word] + (of if word in MEASURED else "") for word in self.assumes)


def claim(profile: str = "float32-any-order", operators: Iterable[str] = (), runtime: str = "") -> Claim:
    """What a proof under an execution profile says of a network that holds such operators (ONNX names).

    Without arithmetic of float32 it is HOLDS-REAL. It is PROVED where it leans on IEEE 754 alone, and
    PROVED@runtime where it leans on what a runtime does: another profile, or operators that IEEE 754 does
    not define.
    """
    curves = tuple(word for word, ops in CURVES.items() if ops & set(operators))
    if profile == "reals":
        return Claim("HOLDS-REAL", ("file-as-hashed", "real-arithmetic"), "")
    level = "PROVED" if profile == "float32-any-order" and not curves else "PROVED@runtime"
    return Claim(level, (*EVERYWHERE, *PROFILES[profile], *curves), runtime if level != "PROVED" else "")


def certified(proved: Claim) -> Claim:
    """The same claim once the exact checker has re-proved all of its certificate."""
    return Claim("CERTIFIED", proved.assumes, proved.runtime)


LEVELS = {
    "HOLDS-REAL": "holds for the network in real arithmetic; says nothing of a run in floating point",
    "PROVED": "holds for every IEEE 754 binary32 execution, whatever the order of its sums",
    "PROVED@runtime": "holds for every execution within what is assumed of the runtime",
    "CERTIFIED": "proved, and all of its certificate re-proved in whole numbers by the exact checker",
}
"""Level -> what it says; a stronger one below a weaker one."""

EVERYWHERE = ("file-as-hashed", "float32-inputs", "exact-comparisons")
PROFILES = {
    "float32-any-order": ("binary32-nearest",),
    "float32-chopping": ("binary32-any-rounding",),
    "tf32": ("tf32-inputs",),
}
"""Execution profile -> what it assumes besides."""

CURVES = {
    "curves-within-4e-7": frozenset(("Sigmoid", "Tanh")),
    "exp-within-2^-21": frozenset(("Exp", "Softmax")),
}
"""Assumption -> the operators that need it."""

MEASURED = {*CURVES, "tf32-inputs", "binary32-any-rounding"}
ASSUMPTIONS = {
    "file-as-hashed": "the network is executed as its file says (an elementwise constant may be folded into"
    " its neighbour; no other weights change at load)",
    "float32-inputs": "inputs are float32 numbers of the property's box, and the property is what is meant",
    "exact-comparisons": "float32 numbers are compared exactly; the hardware does not fail",
    "binary32-nearest": "binary32 arithmetic rounded to nearest, summed in any order, fused or not,"
    " subnormals kept or flushed; no TF32, 16-bit, Winograd, FFT or integer kernels",
    "binary32-any-rounding": "binary32 arithmetic rounded in any direction, chopping included, in any order",
    "tf32-inputs": "factors of products rounded or cut to TF32, sums in binary32 with any rounding",
    "curves-within-4e-7": "Sigmoid and Tanh of the runtime err by at most 4e-7 on every float32 input",
    "exp-within-2^-21": "Exp of the runtime errs by at most 2^-21 of its value on every float32 input",
    "real-arithmetic": "the network is computed without rounding",
}
"""Word -> what is assumed."""
