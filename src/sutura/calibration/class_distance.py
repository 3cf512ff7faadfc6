"""Sharper probabilities near the class that is named: one temperature, for what surely is of the domain.

A network taught to doubt what is shifted doubts its own domain too. What an input is like shows in the
features it has in the network: those of a sample of the domain lie near the others of its class, those of a
shifted one lie far even from the class that the network names (class-conditional Gaussians as in Lee et al.,
NeurIPS 2018; here a probabilistic PCA a class). Near it scores are multiplied; far away they stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.special import softmax

from sutura.calibration.distance import Gaussian, Labels, Logits, Samples, best_factor, gaussian
from sutura.errors import DataError

NEAR, FAR = 0.8, 0.98
"""Quantiles of the distances in domain: up to the first a sample is near, from the second on far."""

FEWEST = 3
"""Fewest samples of a class that a Gaussian is fitted to."""


@dataclass(frozen=True, slots=True, eq=False)
class ByClass:
    """Scores times `near` up to the distance `start`, as they are from `end` on, straight in between.

    `near` is positive: no decision changes.
    """

    gaussians: tuple[Gaussian, ...]
    start: float
    end: float
    near: float

    def factors(self, logits: Logits, features: Samples) -> Float64[np.ndarray, " batch"]:
        """What the scores of each sample are multiplied with."""
        distances = class_distances(self.gaussians, logits, features)
        return 1 + (self.near - 1) * _nearness(distances, self.start, self.end)

    def __call__(self, logits: Logits, features: Samples) -> Float64[np.ndarray, "batch classes"]:
        """Probabilities for the scores and features of samples."""
        return softmax(logits * self.factors(logits, features)[:, None], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Distances of all classes as products, in units of end - start; u is the features less `centre`.

    They are u**2 @ squares + u @ lines + constant - (u @ directions - origin)**2 @ owner.
    """

    centre: Float64[np.ndarray, " n"]
    squares: Float64[np.ndarray, "n classes"]
    lines: Float64[np.ndarray, "n classes"]
    constant: Float64[np.ndarray, " classes"]
    directions: Float64[np.ndarray, "n k"]
    origin: Float64[np.ndarray, " k"]
    owner: Float64[np.ndarray, "k classes"]


def tables(scale: ByClass) -> Tables:
    """What a graph or a module computes the distances with."""
    held, span = scale.gaussians, scale.end - scale.start
    centre = np.mean([each.mean for each in held], axis=0)
    means = np.stack([each.mean - centre for each in held], axis=1)
    rests = np.array([each.rest for each in held]) / span
    narrow = [each.directions / np.sqrt(span) for each in held]
    widths = [each.shape[1] for each in narrow]
    return Tables(
        centre=centre,
        squares=np.tile(rests, (len(centre), 1)),
        lines=-2 * rests * means,
        constant=rests * (means**2).sum(axis=0),
        directions=np.concatenate(narrow, axis=1),
        origin=np.concatenate([mean @ each for mean, each in zip(means.T, narrow, strict=True)]),
        owner=np.repeat(np.eye(len(held)), widths, axis=0),
    )


def class_gaussians(features: Samples, labels: Labels, classes: int) -> tuple[Gaussian, ...]:
    """One Gaussian a class; raises DataError for a class with too few samples, or samples all alike."""
    fitted: list[Gaussian] = []
    for index in range(classes):
        own = features[labels == index]
        if len(own) < FEWEST:
            raise DataError(
                f"class {index} has {len(own)} samples to learn from; distance needs {FEWEST} of each class"
            )
        try:
            fitted.append(gaussian(own))
        except DataError:
            raise DataError(
                f"the {len(own)} samples of class {index} all have the same features; give more, or others"
            ) from None
    return tuple(fitted)


def class_distances(
    gaussians: tuple[Gaussian, ...], logits: Logits, features: Samples
) -> Float64[np.ndarray, " batch"]:
    """Squared distance of each sample from the classes, in the shares that its softmax gives them."""
    each = np.stack([held.distances(features) for held in gaussians], axis=1)
    return (softmax(logits, axis=1) * each).sum(axis=1)


def by_class(gaussians: tuple[Gaussian, ...], logits: Logits, features: Samples, labels: Labels) -> ByClass:
    """Fit `near` by the negative log-likelihood on samples that the Gaussians were not fitted to.

    Raises DataError where all are equally far from their classes.
    """
    distances = class_distances(gaussians, logits, features)
    start, end = (float(q) for q in np.quantile(distances, (NEAR, FAR)))
    if not start < end:
        raise DataError("the samples are equally far from their classes; distance needs samples that vary")
    share = _nearness(distances, start, end)
    near = best_factor(logits, labels, lambda factor: 1 + (factor - 1) * share)
    return ByClass(gaussians, start, end, near)


def _nearness(distances: Float64[np.ndarray, " batch"], start: float, end: float) -> np.ndarray:
    return np.clip((end - distances) / (end - start), 0, 1)
