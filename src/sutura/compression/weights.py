"""Weights of a compressed network as safetensors, under the names that its PyTorch module has."""

from __future__ import annotations

from sutura.compression.compress import Compressed
from sutura.extras import require


def safetensors_of(made: Compressed) -> bytes:
    """The bytes of a .safetensors file that `made.module().load_state_dict` takes back.

    Its metadata hold the SHA-256 of the ONNX file it belongs to. Raises MissingExtraError without torch or
    safetensors.
    """
    require("torch", "torch")
    save = require("safetensors.torch", "torch").save
    state = {name: value.contiguous() for name, value in made.module().state_dict().items()}
    return save(state, metadata={"format": "pt", "onnx_sha256": made.network.sha256})
