"""Does the network as read compute what ONNX Runtime computes? A doubt is a refusal."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import shown
from sutura.network.cost import macs
from sutura.network.evaluate import activations, forward
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.network.run import open_session, run

MAX_NUMBERS = 2**23
MAX_WORK = 2**34
"""Most numbers held at once, and multiply-accumulate steps; large networks are checked on fewer points."""

SLACK = 64.0
ROUNDING = 2.0**-22


def against_runtime(network: Network, original: bytes | None, *, samples: int = 32, seed: int = 0) -> float:
    """Largest absolute difference between float64 evaluation and ONNX Runtime on random points.

    ONNX Runtime runs the `original` bytes, which must be those that `network` was read from (None where there
    are none), and the bytes written for `network`. Raises NetworkError where a difference is more than
    float32 rounding explains: 64 times what the same evaluation in float32 shows, or 2^-22 of the largest
    value that occurs, whichever is more.
    """
    size = sum(math.prod(shape) for shape in network.shapes.values())
    work = sum(macs(node.op, network.shapes[node.output]) for node in network.nodes)
    points = _points(network, max(1, min(samples, MAX_NUMBERS // size, MAX_WORK // max(1, work))), seed)
    points, values = _defined(network, points)
    exact, allowed = values[network.output], _explained(network, points, values)
    worst = 0.0
    for role, data in (("as it came", original), ("as sutura writes it", write_onnx(network))):
        if data is None:
            continue
        found = run(open_session(data), points).astype(np.float64)
        if found.shape != exact.shape:
            raise NetworkError(f"{shown(network.name)} {role} gives {found.shape}, read as {exact.shape}")
        difference = float(np.max(np.abs(found - exact), initial=0.0))
        if not difference <= allowed:
            raise NetworkError(
                f"{shown(network.name)} {role} differs in ONNX Runtime by {difference:.3g} from what was "
                f"read (rounding explains {allowed:.3g}): an operator was misread; report it with the file"
            )
        worst = max(worst, difference)
    return worst


def tolerance(network: Network, points: Float32[np.ndarray, " batch *shape"]) -> float:
    """How much float32 rounding may explain on these points; raises NetworkError where values overflow."""
    return _explained(network, points, activations(network, points.astype(np.float64)))


def _explained(network: Network, points: np.ndarray, exact: Mapping[str, np.ndarray]) -> float:
    largest = max(float(np.max(np.abs(value), initial=0.0)) for value in exact.values())
    single = forward(network, points)[network.output].astype(np.float64)
    if not (math.isfinite(largest) and np.isfinite(single).all()):
        raise NetworkError(f"{shown(network.name)} overflows on ordinary inputs; its weights are too large")
    own = float(np.max(np.abs(single - exact[network.output]), initial=0.0))
    return max(SLACK * own, ROUNDING * largest)


def _defined(
    network: Network, points: Float32[np.ndarray, " batch *shape"]
) -> tuple[Float32[np.ndarray, " some *shape"], Mapping[str, np.ndarray]]:
    """The points, less those at which a quotient of the network has no finite value, and all values there."""
    values = activations(network, points.astype(np.float64))
    if not any(isinstance(node.op, ops.Divide | ops.Reciprocal) for node in network.nodes):
        return points, values
    finite = np.all([np.isfinite(v).reshape(len(points), -1).all(axis=1) for v in values.values()], axis=0)
    if not finite.any():
        raise NetworkError(f"{shown(network.name)} divides by zero on ordinary inputs; it cannot be checked")
    return points[finite], {name: value[finite] for name, value in values.items()}


def _points(network: Network, count: int, seed: int) -> Float32[np.ndarray, " batch *shape"]:
    """Normal points of several sizes, the zero point among them."""
    draw = np.random.default_rng(seed)
    points = draw.standard_normal((count, *network.input_shape), dtype=np.float32)
    scales = np.resize(np.array([1.0, 0.1, 4.0, 0.0], dtype=np.float32), count)
    return points * scales.reshape(-1, *(1,) * len(network.input_shape))
