"""The folder that ships: network, certificate, properties, report, card, recipe and the digests of all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sutura.errors import OutputError
from sutura.ship.chain import Shipped
from sutura.ship.recipe import written
from sutura.writing import write_all

SUMS = "SHA256SUMS"


def artefact(
    shipped: Shipped, report: dict[str, Any], pages: Mapping[str, str], weights: bytes | None
) -> dict[str, bytes]:
    """File name -> bytes. `pages` are the texts made of the report: report.html and README.md; `weights` are
    those of the torch form, where there is one."""
    files: dict[str, bytes] = {"model.onnx": shipped.network.read_bytes()}
    if weights is not None:
        files["model.safetensors"] = weights
    if shipped.certificate is not None:
        files["certificate.json"] = shipped.certificate.read_bytes()
    for place in shipped.recipe.properties:
        files[f"properties/{place.name}"] = place.read_bytes()
    files["recipe.toml"] = written(shipped.recipe).encode()
    files["report.json"] = (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
    files |= {name: text.encode() for name, text in pages.items()}
    files[SUMS] = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())
    ).encode()
    return files


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write them all, or none. Raises OutputError where that fails."""
    try:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}") from None
    write_all({folder / name: data for name, data in files.items()})
