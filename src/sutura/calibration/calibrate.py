"""calibrate(): one interface to every method, post-hoc or by training, for networks and PyTorch modules."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from scipy.special import softmax

from sutura.calibration.class_distance import ByClass, by_class, class_gaussians
from sutura.calibration.config import CalibrateConfig
from sutura.calibration.distance import ByDistance, by_distance, gaussian
from sutura.calibration.fold import (
    evidence_head,
    folded,
    folded_by_class,
    folded_by_distance,
    network_features,
    network_scores,
)
from sutura.calibration.made import Made, Predictor, Run, Samples, Source, unheard
from sutura.calibration.noise import perturbed_samples, perturbed_validation
from sutura.calibration.scaling import Affine, Fit, Scaling, isotonic, temperature, vector
from sutura.calibration.score import Interval, Outcomes, Scores, interval, outcomes, summary
from sutura.dataset import Dataset
from sutura.errors import CalibrationError, DataError, RefusedError
from sutura.extras import require
from sutura.network.budget import shown, shown_shape
from sutura.network.graph import Network
from sutura.network.read import Loaded
from sutura.training.config import unknown

if TYPE_CHECKING:
    from torch import nn

    from sutura.training.train import EpochListener

FEWEST = 20
"""Fewest samples that are split into a part to fit on and one to measure on."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """A calibrated predictor, and estimates with a 95 % interval from `samples` samples it has not seen.

    `predict` gives probabilities. `network` is None where the method has no single network or a module was
    given; then `module` holds the new one, where there is one. `outcomes` holds those before and after.
    """

    method: str
    made: Made
    before: Scores
    after: Scores
    interval: Interval
    outcomes: tuple[Outcomes, Outcomes]
    samples: int
    seconds: float

    @property
    def network(self) -> Network | None:
        """The calibrated network, to be written as ONNX."""
        return self.made.network

    @property
    def module(self) -> nn.Module | None:
        """The calibrated module."""
        return self.made.module

    @property
    def predict(self) -> Predictor:
        """Samples to probabilities."""
        return self.made.predict


def calibrate(
    network: Loaded | Network | nn.Module,
    data: Dataset,
    config: CalibrateConfig | None = None,
    *,
    listen: EpochListener = unheard,
    checkpoint: Path | None = None,
) -> Calibrated:
    """Calibrate a classifier on labelled data it was not trained on; METHODS lists how.

    Post-hoc methods need no PyTorch for a network; what they make of it is a network again. Temperatures
    change no decision (but for ties that float32 rounding makes). Raises DataError for data that do not fit,
    CalibrationError for an unknown method, RefusedError where accuracy would fall by more than
    `config.allowed_drop`, TrainingError and MissingExtraError where training cannot be done.
    """
    config = config or CalibrateConfig()
    if config.method not in METHODS:
        raise CalibrationError(unknown("method", config.method, METHODS))
    source = _source(network)
    fitted_on, held_out = split(_checked(data, source), config.holdout, config.seed)
    labels = _labels(held_out)
    was = outcomes(softmax(_fitting(source.scores(held_out.x), data), axis=1), labels)
    started = time.monotonic()
    made = METHODS[config.method].make(source, fitted_on, config, Run(listen, checkpoint))
    seconds = time.monotonic() - started
    found = outcomes(made.predict(held_out.x), labels)
    before, after, seen = summary(was), summary(found), len(held_out)
    if before.accuracy - after.accuracy > config.allowed_drop + 1e-9:
        raise RefusedError(
            f"{config.method} costs accuracy: {before.accuracy:.2%} before, {after.accuracy:.2%} after on "
            f"{seen} held-out samples; {config.allowed_drop:.1%} may be lost: choose milder settings"
        )
    span = interval(found, seed=config.seed)
    return Calibrated(config.method, made, before, after, span, (was, found), seen, seconds)


def split(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """The data in two parts drawn by seed, the second with `share` of the samples.

    Raises DataError for fewer than FEWEST samples, CalibrationError for a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise CalibrationError(f"holdout={share}; give a share between 0 and 1, such as 0.2")
    if len(data) < FEWEST:
        raise DataError(f"{data.name} has {len(data)} samples; calibration needs at least {FEWEST}")
    order = np.random.default_rng(seed).permutation(len(data))
    count = min(max(round(share * len(data)), FEWEST // 4), len(data) - FEWEST // 4)
    return _rows(data, np.sort(order[count:])), _rows(data, np.sort(order[:count]))


def _rows(data: Dataset, rows: np.ndarray) -> Dataset:
    return Dataset(data.name, data.x[rows], _labels(data)[rows])


def _source(network: Loaded | Network | nn.Module) -> Source:
    if isinstance(network, Loaded):
        network = network.network
    if isinstance(network, Network):
        return Source(network, None, network_scores(network))
    from sutura.calibration.predict import module_of, scores_of

    module = module_of(network)
    return Source(None, module, scores_of(module))


def _checked(data: Dataset, source: Source) -> Dataset:
    if data.y is None:
        raise DataError(f"{data.name} has no labels; calibration needs y beside x")
    if source.network is not None and data.x.shape[1:] != source.network.input_shape:
        raise DataError(
            f"{data.name}: samples have shape {shown_shape(data.x.shape[1:])}; network "
            f"{shown(source.network.name)} takes {shown_shape(source.network.input_shape)}"
        )
    return data


def _fitting(
    scores: Float64[np.ndarray, "batch classes"], data: Dataset
) -> Float64[np.ndarray, "batch classes"]:
    """The scores; raises DataError unless there is one for every class that the labels name."""
    highest = int(_labels(data).max())
    if scores.ndim != 2 or scores.shape[1] <= highest:
        raise DataError(
            f"{data.name}: label {highest} is out of range; the network gives "
            f"{shown_shape(scores.shape[1:])} scores a sample"
        )
    return scores


def _labels(data: Dataset) -> Any:
    assert data.y is not None
    return data.y


@dataclass(frozen=True, slots=True)
class Method:
    """How a method is done, what it is, whether it trains, and whether it makes one network."""

    make: Callable[[Source, Dataset, CalibrateConfig, Run], Made]
    title: str
    trains: bool = False
    one_network: bool = True


def _post_hoc(fit: Fit, *, perturbed: bool = False) -> Callable[..., Made]:
    """Fit a map of the scores, on clean samples or under noise."""

    def make(source: Source, data: Dataset, config: CalibrateConfig, run: Run) -> Made:
        if perturbed:
            scores, labels = perturbed_validation(source.scores, data.x, _labels(data), config.seed)
        else:
            scores, labels = source.scores(data.x), _labels(data)
        return _mapped(source, fit(scores, labels))

    return make


def _mapped(source: Source, scaling: Scaling) -> Made:
    """The source with its scores mapped."""

    def predict(x: Samples) -> Float64[np.ndarray, "batch classes"]:
        return scaling(source.scores(x))

    network, module = None, None
    if isinstance(scaling, Affine):
        network = folded(source.network, scaling) if source.network else None
        if source.module is not None:
            from sutura.calibration.predict import Scaled

            module = Scaled(source.module, scaling)
    return Made(predict, network, module, scaling)


def _two_temperatures(source: Source, data: Dataset, config: CalibrateConfig, run: Run) -> Made:
    """Half of the samples say what is near; the other half, as it is and under noise, how sure to be."""
    known, kept = split(data, 0.5, config.seed + 1)
    scores, labels = source.scores(kept.x), _labels(kept)
    away, truth = perturbed_samples(source.scores, kept.x, labels, config.seed)
    away, truth = away[len(kept) :], truth[len(kept) :]
    shifted = away, source.scores(away), truth
    return _scaled_by_distance(source, by_distance(gaussian(known.x), (kept.x, scores, labels), shifted))


def _scaled_by_distance(source: Source, scale: ByDistance) -> Made:
    """The source with its scores times what distance says."""
    network, module = None, None
    if source.network is not None:
        network = folded_by_distance(source.network, scale)
    if source.module is not None:
        from sutura.calibration.predict import ScaledByDistance

        module = ScaledByDistance(source.module, scale)
    return Made(lambda x: scale(source.scores(x), x), network, module, scale)


def _graded(source: Source, data: Dataset, config: CalibrateConfig, run: Run) -> Made:
    """Trained on a part; the rest makes scores near their class as sure as they should be in domain."""
    require("safetensors", "torch")
    from sutura.calibration.retrain import retrained

    part, kept = split(data, 0.2, config.seed + 1)
    trained = retrained("graded", source, part, config, run)
    features = _features(trained)
    scores = trained.scores(kept.x)
    held = class_gaussians(features(part.x), _labels(part), scores.shape[1])
    scale = by_class(held, scores, features(kept.x), _labels(kept))
    return _scaled_by_class(trained, scale, features)


def _features(source: Source) -> Predictor:
    if source.network is not None:
        return network_features(source.network)
    from sutura.calibration.predict import features_of

    assert source.module is not None
    return features_of(source.module)


def _scaled_by_class(source: Source, scale: ByClass, features: Predictor) -> Made:
    """The source with its scores times what the distance of its features says."""
    network, module = None, None
    if source.network is not None:
        network = folded_by_class(source.network, scale)
    if source.module is not None:
        from sutura.calibration.predict import ScaledByClass

        module = ScaledByClass(source.module, scale)
    return Made(lambda x: scale(source.scores(x), features(x)), network, module, scale)


def _retrained(name: str) -> Callable[..., Made]:
    """Train on from the weights there are."""

    def make(source: Source, data: Dataset, config: CalibrateConfig, run: Run) -> Made:
        require("safetensors", "torch")
        from sutura.calibration.retrain import retrained

        trained = retrained(name, source, data, config, run)
        if name == "evidential":
            from sutura.calibration.predict import evidence

            network = evidence_head(trained.network) if trained.network else None
            return Made(lambda x: evidence(trained.scores(x)), network, trained.module)
        return _bare(trained)

    return make


def _bare(source: Source) -> Made:
    return Made(lambda x: softmax(source.scores(x), axis=1), source.network, source.module)


def _dropout(source: Source, data: Dataset, config: CalibrateConfig, run: Run) -> Made:
    require("safetensors", "torch")
    from sutura.calibration.retrain import dropout

    return dropout(source, config)


def _ensemble(name: str) -> Callable[..., Made]:
    def make(source: Source, data: Dataset, config: CalibrateConfig, run: Run) -> Made:
        require("safetensors", "torch")
        from sutura.calibration.retrain import ensemble

        return ensemble(name, source, data, config, run)

    return make


METHODS: dict[str, Method] = {
    "temperature": Method(_post_hoc(temperature), "one temperature (Guo et al. 2017)"),
    "vector": Method(_post_hoc(vector), "a factor and an offset a class (Guo et al. 2017)"),
    "isotonic": Method(_post_hoc(isotonic), "isotonic regression, class by class", one_network=False),
    "perturbed-temperature": Method(
        _post_hoc(temperature, perturbed=True), "one temperature, fitted under noise (Tomani et al. 2021)"
    ),
    "distance-temperature": Method(
        _two_temperatures, "ours: one temperature near the data, one far from them fitted under noise"
    ),
    "label-smoothing": Method(_retrained("label-smoothing"), "train with smoothed labels", trains=True),
    "evidential": Method(_retrained("evidential"), "train for evidence (Sensoy et al. 2018)", trains=True),
    "falcon": Method(_retrained("falcon"), "FALCON (Tomani and Buettner 2021)", trains=True),
    "graded": Method(_graded, "ours: targets that fade with perturbation, surer near the data", trains=True),
    "mc-dropout": Method(_dropout, "the mean of passes with dropout", one_network=False),
    "ensemble": Method(_ensemble("plain"), "members trained anew", trains=True, one_network=False),
    "adversarial-ensemble": Method(
        _ensemble("adversarial"), "members trained anew, with FGSM samples", trains=True, one_network=False
    ),
}
"""Name -> method."""
