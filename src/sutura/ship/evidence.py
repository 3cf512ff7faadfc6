"""The report of a recipe's run as plain values, with nothing in it that a second run would find otherwise."""

from __future__ import annotations

import base64
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sutura.ship.catalogue import ROLES
from sutura.ship.chain import Shipped, drawable
from sutura.ship.result import Done
from sutura.ship.standing import standings
from sutura.ship.store import digest


def evidence(shipped: Shipped) -> dict[str, Any]:
    """What `sutura ship` reports: properties, sizes, and every stage with its options and result."""
    recipe = shipped.recipe
    changed = [d for d in shipped.stages if ROLES[d.stage.run].changes and d.result.network.is_file()]
    sizes = [("original", shipped.original), *((d.stage.run, d.result.network) for d in changed)]
    return {
        "name": recipe.name,
        "original": _file(shipped.original) | {"name": recipe.start.name},
        "network": _file(shipped.network),
        "certificate": None if shipped.certificate is None else digest(shipped.certificate),
        "properties": [asdict(known) for known in standings(shipped)],
        "sizes": [{"after": name, "bytes": place.stat().st_size} for name, place in sizes],
        "stages": [_stage(done) for done in shipped.stages],
    }


def _file(place: Path) -> dict[str, Any]:
    return {"name": place.name, "sha256": digest(place), "bytes": place.stat().st_size}


def _stage(done: Done) -> dict[str, Any]:
    picture = done.result.folder / "plot.png"
    return {
        "run": done.stage.run,
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in done.stage.options.items()},
        "document": _placeless(done.result.document, str(done.result.folder.parent)),
        "carried": list(done.carried.values()),
        "undrawn": done.stage.plot and not picture.is_file() and not drawable(),
        "picture": base64.b64encode(picture.read_bytes()).decode() if picture.is_file() else "",
    }


def _placeless(value: Any, store: str) -> Any:
    """Without the working folder's name in it: files are called by their own."""
    if isinstance(value, dict):
        return {_placeless(k, store): _placeless(v, store) for k, v in value.items()}
    if isinstance(value, list):
        return [_placeless(v, store) for v in value]
    return Path(value).name if isinstance(value, str) and value.startswith(store) else value
