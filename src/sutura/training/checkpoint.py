"""Where a run stands, as one safetensors file: every tensor, and a line of JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from sutura.errors import TrainingError
from sutura.writing import write_all

FORMAT = "sutura/checkpoint 1"


@dataclass(frozen=True, slots=True)
class Standing:
    """Epochs done and the mean loss of each; `run` tells this run apart from all others."""

    run: str
    losses: tuple[float, ...]


def write(place: Path, standing: Standing, module: nn.Module, optimiser: Optimizer) -> None:
    """Write everything the next epoch depends on; the file appears whole or not at all.

    Raises OutputError where it cannot be written.
    """
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    plain: dict[str, Any] = {}
    for index, values in optimiser.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value
            else:
                plain[f"{index}.{name}"] = value
    note = {"run": standing.run, "losses": standing.losses, "optimiser": plain}
    header = {"format": FORMAT, "standing": json.dumps(note)}
    write_all({place: save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, header)})


def read(place: Path, run: str, module: nn.Module, optimiser: Optimizer) -> Standing:
    """Bring `module` and `optimiser` to where the file says the run stands.

    Raises TrainingError where the file is no checkpoint, or one of another run: other data, another network
    or configuration.
    """
    try:
        with safetensors.safe_open(place, "pt") as file:  # pyright: ignore[reportPrivateImportUsage]
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise TrainingError(f"{place.name} is no checkpoint: {' '.join(str(error).split())}") from None
    if header.get("format") != FORMAT:
        raise TrainingError(f"{place.name} is no checkpoint of sutura; name another file to start anew")
    try:
        note = json.loads(header["standing"])
        if note["run"] == run:
            module.load_state_dict(_under("module.", tensors))
            _restore(optimiser, _under("optimiser.", tensors) | note["optimiser"])
            return Standing(run, tuple(note["losses"]))
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"{place.name} is a damaged checkpoint; delete it to start anew: {reason}"
        ) from None
    raise TrainingError(
        f"{place.name} is the checkpoint of another run (other data, network or configuration); name another "
        "file, or delete it to start anew"
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _restore(optimiser: Optimizer, values: Mapping[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def state_bytes(module: nn.Module) -> bytes:
    """The module's weights as bytes, to take a digest of."""
    return save({k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()})


def finite(module: nn.Module) -> bool:
    """Whether no weight is NaN or infinite."""
    return all(bool(torch.isfinite(p).all()) for p in module.parameters())
