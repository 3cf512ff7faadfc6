"""What is analysed: networks, read, checked, written and run. Imports its parts, and onnx, on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sutura.network.evaluate import activations
    from sutura.network.graph import Network, Node, Shape
    from sutura.network.inspect import Inspection, NodeReport, inspect_onnx
    from sutura.network.onnx_read import parse_onnx, read_onnx
    from sutura.network.onnx_write import network_nodes, to_model, write_onnx
    from sutura.network.read import Loaded, load, read_network
    from sutura.network.run import Session, open_session
    from sutura.network.selfcheck import against_runtime
    from sutura.network.torch_read import from_torch

__all__ = [
    "Inspection",
    "Loaded",
    "Network",
    "Node",
    "NodeReport",
    "Session",
    "Shape",
    "activations",
    "against_runtime",
    "from_torch",
    "inspect_onnx",
    "load",
    "network_nodes",
    "open_session",
    "parse_onnx",
    "read_network",
    "read_onnx",
    "to_model",
    "write_onnx",
]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'sutura.network' has no attribute {name!r}")
    return getattr(import_module(f"sutura.network.{PLACES[name]}"), name)


PLACES = {
    "Inspection": "inspect",
    "Loaded": "read",
    "Network": "graph",
    "Node": "graph",
    "NodeReport": "inspect",
    "Session": "run",
    "Shape": "graph",
    "activations": "evaluate",
    "against_runtime": "selfcheck",
    "from_torch": "torch_read",
    "inspect_onnx": "inspect",
    "load": "read",
    "network_nodes": "onnx_write",
    "open_session": "run",
    "parse_onnx": "onnx_read",
    "read_network": "read",
    "read_onnx": "onnx_read",
    "to_model": "onnx_write",
    "write_onnx": "onnx_write",
}
"""Name -> the file that defines it."""
