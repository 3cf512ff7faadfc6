"""A network as the risk measures see it: to run, to differentiate and to bound.

Decisions and certainty are read off the logits: a Softmax at the end of the file is left out of what is
differentiated and bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float64

from sutura.bounds.gradient import gradients
from sutura.bounds.lower import lower
from sutura.bounds.program import Program
from sutura.bounds.program import run as run_program
from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.cost import macs
from sutura.network.graph import Network
from sutura.network.onnx_write import digest_of, write_onnx
from sutura.network.read import Loaded
from sutura.network.run import open_session
from sutura.risk.safety import Adversarial, Reachability, Risk, Uncertainty
from sutura.verdict.replay import Runner, runner

Points = Float64[np.ndarray, "batch n"]
Outputs = Float64[np.ndarray, "batch m"]
Pull = Callable[[Outputs], Points]
Slopes = Callable[[Points], tuple[Outputs, Pull]]
"""Logits at some points, and the function from gradients in the logits to gradients in the inputs."""

SOFTMAX_GAP = 2.0**-10
"""Logits that differ by this and 2^-22 a class keep their order through any float32 softmax: the quotient of
the probabilities is then above 1.0009, and their relative errors stay below (256 + classes) 2^-24."""

NUMPY_MACS = 5_000_000
"""Beyond so many multiply-accumulate steps a sample, gradients come from PyTorch where it is installed."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What is measured: `run` in ONNX Runtime (float32, the execution that counts), `slopes` None where there
    are no gradients, `program` None where there are no bounds and `why_not` the reason.

    `head` is the network that `program` and `slopes` compute, `gap` the difference of its scores that keeps
    their order in what `run` gives.
    """

    loaded: Loaded
    head: Loaded
    run: Runner
    program: Program | None
    why_not: str
    slopes: Slopes | None
    gap: float

    @property
    def network(self) -> Network:
        """The network as loaded."""
        return self.loaded.network


def model(loaded: Loaded, risk: Risk, *, gradients: bool = True) -> Model:
    """The network seen by one risk; without `gradients` it is a black box, and only searched.

    Witnesses of uncertainty are replayed on the logits, those of the other risks on the file as it came.
    """
    cut = _without_softmax(loaded.network) if not isinstance(risk, Reachability) else None
    head = loaded if cut is None else Loaded(cut, None, loaded.difference)
    replayed = head if isinstance(risk, Uncertainty) else loaded
    session = open_session(
        replayed.original if replayed.original is not None else write_onnx(replayed.network)
    )
    program, why_not = _lowered(head.network)
    wide = SOFTMAX_GAP + head.network.output_size * 2.0**-22
    gap = wide if cut is not None and isinstance(risk, Adversarial) else 0.0
    slopes = _slopes(head.network, program) if gradients else None
    return Model(loaded, head, runner(session), program, why_not, slopes, gap)


def logits(seen: Model, x: Points) -> Outputs:
    """The head's outputs, without gradients (an estimate)."""
    if seen.slopes is not None:
        return seen.slopes(x)[0]
    out = seen.run(x.astype(np.float32)).astype(np.float64)
    if seen.head is seen.loaded or seen.gap == 0.0:
        return out
    return np.log(np.maximum(out, np.finfo(np.float32).smallest_subnormal))


def _without_softmax(network: Network) -> Network | None:
    last = network.nodes[-1]
    if not isinstance(last.op, ops.Softmax) or last.output != network.output:
        return None
    if last.inputs[0] == network.input or network.output_shape[-1] != network.output_size:
        return None
    cut = replace(network, nodes=network.nodes[:-1], output=last.inputs[0], name=f"{network.name} (logits)")
    return replace(cut, sha256=digest_of(cut))


def _lowered(network: Network) -> tuple[Program | None, str]:
    try:
        return lower(network), ""
    except NetworkError as error:
        return None, str(error)


def _slopes(network: Network, program: Program | None) -> Slopes | None:
    work = sum(macs(node.op, network.shapes[node.output]) for node in network.nodes)
    if find_spec("torch") is not None and (program is None or work > NUMPY_MACS):
        try:
            from sutura.risk.torch_slopes import torch_slopes

            return torch_slopes(network)
        except NetworkError:
            pass  # an operator without a PyTorch form: the program, where there is one, has gradients too
    return None if program is None else program_slopes(program)


def program_slopes(program: Program) -> Slopes:
    """Gradients of a program in float64."""

    def slopes(x: Points) -> tuple[Outputs, Pull]:
        with np.errstate(all="ignore"):
            values = run_program(program, x)

        def pull(seed: Outputs) -> Points:
            with np.errstate(all="ignore"):
                return gradients(program, values, seed).get(0, np.zeros_like(x))

        return values[-1], pull

    return slopes
