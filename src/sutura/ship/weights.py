"""The weights of the network that ships, as safetensors, under the names that its PyTorch module has."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from sutura.errors import NetworkError
from sutura.ship.store import fresh, keep, kept, key

FILE = "model.safetensors"


def torch_weights(network: Path, store: Path) -> bytes | None:
    """The bytes of a file that the network's module loads; None without torch or safetensors, or where the
    network has no torch form.

    The module is `sutura.network.torch_write.to_module(network)`, for a repaired file
    `sutura.gates.torch_module.repaired_module(bytes)`. The metadata hold the SHA-256 of the ONNX file. Kept
    in the store like a stage's result.
    """
    if find_spec("torch") is None or find_spec("safetensors") is None:
        return None
    name = key("safetensors", [network], [])
    found = kept(store, name)
    if found is None:
        work = fresh(store)
        made = _weights(network.read_bytes())
        if made is not None:
            (work / FILE).write_bytes(made)
        found = keep(store, name, work, 0, {})
    place = found.folder / FILE
    return place.read_bytes() if place.is_file() else None


def _weights(network: bytes) -> bytes | None:
    from safetensors.torch import save

    from sutura.gates.table import is_gated
    from sutura.gates.torch_module import repaired_module
    from sutura.network.onnx_read import parse_onnx
    from sutura.network.torch_write import to_module

    try:
        gated = is_gated(network)
        module = repaired_module(network) if gated else to_module(parse_onnx(network, "model.onnx"))
    except NetworkError:
        return None
    state = {name: value.detach().clone().contiguous() for name, value in module.state_dict().items()}
    # One entry only: the order of several is not the same in every run.
    return save(state, metadata={"onnx_sha256": hashlib.sha256(network).hexdigest()})
