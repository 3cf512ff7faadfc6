"""Run an ONNX file in float32 through ONNX Runtime: the execution that counts."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float32

from sutura.errors import MismatchError, NetworkError
from sutura.network.budget import shown, shown_shape
from sutura.network.graph import Shape
from sutura.network.onnx_file import open_file
from sutura.network.onnx_read import settled
from sutura.network.onnx_tensor import Unreadable

FATAL = 4


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A loaded network; `runtime` is the onnxruntime.InferenceSession.

    `input_shape` is that of one sample. Where `single`, the file takes one sample at a time and `run` loops;
    where not `batched`, it does so without a batch axis.
    """

    runtime: Any
    input: str
    output: str
    input_shape: Shape
    single: bool
    batched: bool = True


def open_session(data: bytes, *, threads: int = 1, optimise: bool = True, gated: bool = False) -> Session:
    """Load the bytes of an ONNX file on the CPU, float32, quietly.

    `data` must come from `write_onnx`, or have passed `parse_onnx`: of what a file may do to the machine,
    only its envelope is checked again here. `gated` allows the branches of a repaired network: give it only
    for bytes that `gated_model` wrote or that the certificate checker accepted. `optimise` leaves ONNX
    Runtime's optimisations at their default. Raises NetworkError where the file is malformed or ONNX
    Runtime does not take it.
    """
    file = open_file(data, gated=gated)
    for statement in file.statements:
        if not gated and any(isinstance(value, Unreadable) for value in statement.attributes.values()):
            raise NetworkError(f"node {statement} has an attribute that is not run, such as a subgraph")
    runtime = load_runtime(data, threads=threads, optimise=optimise)
    if file.fixed_batch and not gated:
        file = settled(file)[0]
    single = file.fixed_batch or not file.batched
    return Session(runtime, file.input, file.output, file.sample, single, file.batched)


def load_runtime(data: bytes, *, threads: int = 1, optimise: bool = True) -> Any:
    """A quiet onnxruntime.InferenceSession on the CPU, for bytes checked before (see `open_session`).

    Raises NetworkError where ONNX Runtime does not take them.
    """
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = FATAL
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (RuntimeError, ValueError, *_failures()) as error:
        raise NetworkError(f"ONNX Runtime does not load the network: {_line(error)}") from None


def run(
    session: Session, x: Float32[np.ndarray, " batch *shape"]
) -> Float32[np.ndarray, " batch *output_shape"]:
    """The outputs for a batch of float32 inputs (batch first, then the input shape), in ONNX Runtime.

    Raises MismatchError for another shape or number type, NetworkError where the run fails.
    """
    if x.dtype != np.float32 or x.ndim == 0 or x.shape[1:] != session.input_shape or not len(x):
        raise MismatchError(
            f"inputs are {x.dtype} of shape {shown_shape(x.shape)}; the network takes float32 in batches of "
            f"{shown_shape(session.input_shape)}"
        )
    parts = list(x[:, None] if session.batched else x) if session.single else [x]
    try:
        results = [session.runtime.run([session.output], {session.input: part})[0] for part in parts]
    except (RuntimeError, ValueError, *_failures()) as error:
        raise NetworkError(f"ONNX Runtime fails on the network: {_line(error)}") from None
    if not session.single:
        return results[0]
    return np.concatenate(results) if session.batched else np.stack(results)


def _failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises."""
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")

    kinds = (value for value in vars(state).values() if isinstance(value, type))
    return tuple(kind for kind in kinds if issubclass(kind, Exception))


def _line(error: Exception) -> str:
    return shown(" ".join(str(error).split())[-200:])
