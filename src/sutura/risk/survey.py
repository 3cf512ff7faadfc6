"""Whole data sets: one result an input, kept in a journal as it comes, and what their distribution says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from sutura.dataset import Dataset
from sutura.network.graph import Network
from sutura.network.read import Loaded
from sutura.progress import Listener, Progress, silent
from sutura.risk.ball import domain
from sutura.risk.journal import Journal, open_journal
from sutura.risk.model import Model
from sutura.risk.quantify import RiskConfig, RiskResult, prepared, quantify_all, seconds_each
from sutura.risk.safety import NAMES

CHUNK_NUMBERS = 1 << 21
"""Numbers of attack points that go through a network together."""

MOST_TOGETHER = 16
RESAMPLES, COVERED = 2000, 0.95
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
WORST = 10


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """A statistic and its percentile bootstrap interval of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What a data set's radii say. Quantiles are those of the sample (no interpolation, infinities included).

    `tightness` is the mean of lower / upper where upper is finite and not zero. `worst` are the inputs of
    least upper bound, then least lower one.
    """

    inputs: int
    certified: int
    attacked: int
    lower: Mapping[str, Interval]
    upper: Mapping[str, Interval]
    tightness: Interval
    worst: tuple[int, ...]
    classes: tuple[Class, ...]


@dataclass(frozen=True, slots=True)
class Class:
    """The inputs of one decision: how many, median and least of the bounds."""

    label: int
    inputs: int
    lower: float
    upper: float
    least_lower: float
    least_upper: float


def survey(
    loaded: Loaded,
    data: Dataset,
    config: RiskConfig,
    *,
    journal: Path | None = None,
    listen: Listener = silent,
) -> list[RiskResult]:
    """The result of each input of a data set, in order.

    Finished inputs are kept in `journal` and not computed again; it is bound to the network, the data and the
    configuration. Raises DataError where it belongs to others, and what `quantify_risk` raises.
    """
    seen = prepared(loaded, config)
    flat = data.x.reshape(len(data), -1)
    kept = open_journal(journal, fingerprint(loaded.network, data, config)) if journal else Journal(None, {})
    stage, known = NAMES[type(config.risk)], dict(kept.results)
    reference = None if data.y is None else (flat, data.y)
    listen(Progress(stage, len(known), len(data) - len(known), len(known) / len(data)))
    for rows in _chunks([i for i in range(len(data)) if i not in known], _together(seen, config)):
        found = quantify_all(seen, flat[rows], config, reference=reference)
        for i, result in zip(rows, found, strict=True):
            known[i] = result
            kept.keep(i, result)
        listen(Progress(stage, len(known), len(data) - len(known), len(known) / len(data)))
    return [known[i] for i in range(len(data))]


def fingerprint(network: Network, data: Dataset, config: RiskConfig) -> str:
    """What results depend on, as a hash: network, data and configuration (but for threads)."""
    limits = config.domain or domain(np.zeros(network.input_size), np.ones(network.input_size))
    plain = replace(config, domain=None, workers=None)
    parts = [network.sha256.encode(), data.x.tobytes(), repr(data.x.shape).encode()]
    parts += [b"" if data.y is None else data.y.tobytes(), repr(asdict(plain)).encode()]
    parts += [
        type(config.risk).__name__.encode(),
        *(v.tobytes() for v in (limits.low, limits.high, limits.scale)),
    ]
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()


def _together(seen: Model, config: RiskConfig) -> int:
    """Inputs of one batch; one by one where each has its own budget, so that the journal keeps up."""
    if seconds_each(config, seen.network.input_size) > 0:
        return 1
    widest = seen.network.input_size if seen.program is None else max(seen.program.sizes)
    return max(1, min(MOST_TOGETHER, CHUNK_NUMBERS // (config.attack.walks * widest)))


def _chunks(rows: Sequence[int], size: int) -> list[list[int]]:
    return [list(rows[i : i + size]) for i in range(0, len(rows), size)]


def summarise(results: Sequence[RiskResult], *, seed: int = 0) -> Summary:
    """Quantiles, bootstrap intervals, the worst inputs and a row for each decision."""
    lower = np.array([r.lower for r in results])
    upper = np.array([r.upper for r in results])
    usable = np.isfinite(upper) & (upper > 0)
    share = lower[usable] / upper[usable]
    random = np.random.default_rng(seed)
    order = np.lexsort((lower, upper))[:WORST]
    decided = np.array([r.label for r in results])
    return Summary(
        len(results),
        int((lower > 0).sum()),
        int(np.isfinite(upper).sum()),
        {f"{q:g}": bootstrap(lower, _quantile(q), random) for q in QUANTILES},
        {f"{q:g}": bootstrap(upper, _quantile(q), random) for q in QUANTILES},
        bootstrap(share, np.mean, random) if len(share) else Interval(np.nan, np.nan, np.nan),
        tuple(int(i) for i in order),
        tuple(_class(int(c), lower[decided == c], upper[decided == c]) for c in np.unique(decided)),
    )


def _quantile(share: float) -> Callable[..., np.ndarray]:
    """The smallest value that at least this share of the sample does not exceed."""

    def of(values: np.ndarray, axis: int = 0) -> np.ndarray:
        at = max(0, int(np.ceil(share * values.shape[axis])) - 1)
        return np.sort(values, axis=axis).take(at, axis=axis)

    return of


def bootstrap(
    values: Float64[np.ndarray, " n"], statistic: Callable[..., np.ndarray], random: np.random.Generator
) -> Interval:
    """Percentile bootstrap (Efron 1979): the statistic of resamples of the same size."""
    drawn: Int64[np.ndarray, "r n"] = random.integers(0, len(values), (RESAMPLES, len(values)))
    spread = np.sort(statistic(values[drawn], axis=1))
    tail = int(RESAMPLES * (1.0 - COVERED) / 2.0)
    return Interval(float(statistic(values, axis=0)), float(spread[tail]), float(spread[-1 - tail]))


def _class(label: int, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]) -> Class:
    middle = _quantile(0.5)
    return Class(
        label,
        len(lower),
        float(middle(lower)),
        float(middle(upper)),
        float(lower.min()),
        float(upper.min()),
    )
