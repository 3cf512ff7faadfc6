"""Results of `sutura risk` as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sutura.certificate.claim import claim
from sutura.network.graph import Network
from sutura.risk.quantify import RiskConfig, RiskResult, seconds_each
from sutura.risk.safety import NAMES
from sutura.risk.survey import Summary


def asked(config: RiskConfig, network: Network) -> dict[str, Any]:
    """What was asked: the risk, the norm, the domain and its units; and what certified bounds rest on."""
    limits = config.domain
    place = None
    if limits is not None:
        place = {
            name: _ends(values) for name, values in zip(("low", "high", "unit"), _arrays(limits), strict=True)
        }
    return {
        "risk": NAMES[type(config.risk)],
        **asdict(config.risk),
        "norm": config.norm,
        "domain": place,
        "bounds": config.bounds,
        "estimator": config.estimator,
        "budget": seconds_each(config, network.input_size),
        "assumptions": list(claim(operators=(type(n.op).__name__ for n in network.nodes)).assumptions),
    }


def _arrays(limits: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return limits.low, limits.high, limits.scale


def _ends(values: np.ndarray) -> float | list[float]:
    """One number where all inputs share it."""
    return float(values[0]) if (values == values[0]).all() else [float(v) for v in values]


def entry(index: int, truth: int | None, name: str, result: RiskResult) -> dict[str, Any]:
    """One input: bounds, estimate, witness and level; null where there is none or it is infinite."""
    witness = result.witness
    return {
        "input": index,
        "risk": name,
        "label": result.label,
        "true_label": truth,
        "lower": result.lower,
        "upper": result.upper,
        "estimate": result.estimate,
        "level": result.level,
        "safety": result.safety,
        "reason": result.reason,
        "seconds": result.seconds,
        "figures": dict(result.figures),
        "witness": None
        if witness is None
        else {"input": [float(v) for v in witness.input], "output": [float(v) for v in witness.output]},
    }


def summary(name: str, found: Summary, results: Sequence[RiskResult]) -> dict[str, Any]:
    """The distribution, with both curves as sorted numbers."""
    return {
        "risk": name,
        **asdict(found),
        "certified_cdf": sorted(r.lower for r in results),
        "attacked_cdf": sorted(r.upper for r in results),
    }
