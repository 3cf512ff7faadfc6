"""PyTorch modules to networks, by way of torch.onnx."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np

from sutura.errors import NetworkError
from sutura.extras import require
from sutura.network.budget import shown
from sutura.network.evaluate import evaluate
from sutura.network.graph import Network
from sutura.network.onnx_read import parse_onnx
from sutura.network.onnx_write import digest_of
from sutura.network.selfcheck import tolerance

EXPORT_OPSET = 18


def from_torch(module: Any, example: Any) -> Network:
    """The network that a PyTorch module computes in eval mode, for batches of any length.

    `example` is an input tensor (or array), batch first; its numbers matter only for a check that the network
    gives what the module gives. The module is not changed. Raises MissingExtraError where torch or onnxscript
    is missing, NetworkError where the module is in training mode, cannot be exported, or is not supported.
    """
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        kind = shown(type(module).__name__)
        raise NetworkError(f"cannot read a network from {kind}; give a path, bytes or a torch module")
    name = type(module).__name__
    if any(part.training for part in module.modules()):
        raise NetworkError(f"module {shown(name)} is in training mode; call .eval() on it first")
    batch = _batch(torch, example, name)
    network = parse_onnx(_exported(torch, module, batch, name), name)
    network = replace(network, sha256=digest_of(network))
    _check(torch, module, batch, network)
    return network


def _torch() -> Any:
    require("onnxscript", "torch")
    return require("torch", "torch")


def _batch(torch: Any, example: Any, name: str) -> Any:
    """The example as a float32 batch of two: one sample would be taken for a fixed length."""
    if example is None:
        raise NetworkError(
            f"module {shown(name)} needs an example, batch axis first, such as torch.zeros(1, 5)"
        )
    try:
        tensor = torch.as_tensor(example, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise NetworkError(f"the example for {shown(name)} is no tensor: {shown(str(error))}") from None
    if tensor.dtype != torch.float32 or tensor.ndim < 2 or not tensor.shape[0]:
        raise NetworkError(
            f"the example for {shown(name)} is {tensor.dtype} of shape {tuple(tensor.shape)}; give float32, "
            "batch axis first"
        )
    return torch.cat([tensor[:1], tensor[:1]])


def _exported(torch: Any, module: Any, batch: Any, name: str) -> bytes:
    file = io.BytesIO()
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (batch,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                opset_version=EXPORT_OPSET,
                external_data=False,
                verbose=False,
            )
            program.save(file)
    except Exception as error:  # noqa: BLE001 - whatever the module's own code raises
        reason = " ".join(str(error).split())
        raise NetworkError(f"torch cannot export module {shown(name)} to ONNX: {shown(reason)}") from None
    return file.getvalue()


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep the exporter's warnings and progress to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _check(torch: Any, module: Any, batch: Any, network: Network) -> None:
    """The module and the network agree on the example, but for float32 rounding."""
    points = np.asarray(batch.numpy(), dtype=np.float32)
    with torch.no_grad():
        told = np.asarray(module(batch).numpy(), dtype=np.float64)
    ours = evaluate(network, points.astype(np.float64))
    if told.shape != ours.shape or not np.max(np.abs(told - ours), initial=0.0) <= tolerance(network, points):
        raise NetworkError(
            f"module {shown(network.name)} and its ONNX export differ on the example: the exporter misread it"
        )
