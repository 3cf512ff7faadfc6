"""Word swap: a share of the words of a text replaced by others, the shift of domain for text."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from sutura.calibration.shift import Shift

Tokens = Float32[np.ndarray, "batch length"]
"""Indices of words as whole float32 numbers, 0 where a text has ended."""


def swap_words(tokens: Tokens, share: float, words: int, seed: int) -> Tokens:
    """Each word gives way with probability `share` to one drawn evenly from 1 to `words` - 1."""
    rng = np.random.default_rng(seed)
    hit = (rng.random(tokens.shape) < share) & (tokens != 0)
    return np.where(hit, rng.integers(1, words, size=tokens.shape), tokens).astype(np.float32)


def word_swap(words: int) -> Shift:
    """The shift of 0, 5, ..., 45 % of the words, for a vocabulary of `words` indices."""

    def perturb(tokens: np.ndarray, share: float, seed: int) -> np.ndarray:
        return swap_words(tokens, share, words, seed)

    return Shift("word swap", tuple(round(0.05 * step, 2) for step in range(10)), perturb)
