"""ship(): the stages of a recipe one after the other, each as a process of its own, each done once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sutura.errors import RecipeError
from sutura.ship.carry import carried
from sutura.ship.catalogue import ROLES, Catalogue
from sutura.ship.origin import origin
from sutura.ship.recipe import Recipe, Stage
from sutura.ship.result import Done
from sutura.ship.store import Result, digest, fresh, keep, kept, key, swept

CERTIFICATE = "model.cert.json"


@dataclass(frozen=True, slots=True)
class Shipped:
    """What came of a recipe: the network it began with, every stage, the network that ships, and its
    certificate where it has one."""

    recipe: Recipe
    original: Path
    stages: tuple[Done, ...]
    network: Path
    certificate: Path | None


@dataclass(frozen=True, slots=True)
class _Networks:
    """The networks that a stage may read."""

    original: Path
    before: Path
    now: Path


@dataclass(frozen=True, slots=True)
class _Task:
    """A stage of a recipe, the properties it is asked for, and the networks it may read."""

    recipe: Recipe
    stage: Stage
    properties: tuple[Path, ...]
    networks: _Networks


Listener = Callable[[int, int, str], None]
"""Hears of each stage before it runs: number, of how many, its command."""


def unheard(at: int, of: int, run: str) -> None:
    """Listens to nothing."""


def ship(recipe: Recipe, catalogue: Catalogue, store: Path, *, listen: Listener = unheard) -> Shipped:
    """Run a recipe. Results are kept in `store` by the digest of what went into them: a stage runs again only
    where its network, its files, its options or sutura's version are others, and a killed run goes on.

    Raises RecipeError with a stage's own words where it refuses its input or what it was asked.
    """
    swept(store)
    original = origin(recipe, store)
    networks = _Networks(original, original, original)
    done: list[Done] = []
    for at, stage in enumerate(recipe.stages, start=1):
        listen(at, len(recipe.stages), stage.run)
        read = digest(networks.now)
        known = carried(recipe, done, read) if stage.run == "verify" else {}
        asked = tuple(at for at in range(len(recipe.properties)) if at not in known)
        task = _Task(recipe, stage, tuple(recipe.properties[at] for at in asked), networks)
        result = _NOTHING if stage.run == "verify" and not asked else _result(task, catalogue, store)
        if ROLES[stage.run].changes and result.network.is_file():
            networks = _Networks(original, networks.now, result.network)
        done.append(Done(stage, result, read, digest(networks.now), asked, known))
    certificate = networks.now.with_name(CERTIFICATE)
    return Shipped(
        recipe, original, tuple(done), networks.now, certificate if certificate.is_file() else None
    )


_NOTHING = Result(Path("nothing"), 0, {"properties": []}, False)
"""Of a verify stage that had nothing left to ask."""


def _result(task: _Task, catalogue: Catalogue, store: Path) -> Result:
    stage, networks = task.stage, task.networks
    reads = {
        "network": [networks.now],
        "original": [networks.original],
        "before": [networks.before],
        "properties": list(task.properties),
    }
    files = [file for what in ROLES[stage.run].reads for file in reads[what]]
    options = catalogue[stage.run]
    named = {
        k: str(task.recipe.folder / str(v)) for k, v in stage.options.items() if options[k].kind == "path"
    }
    values = [(k, v) for k, v in stage.options.items() if k not in named]
    contents = [Path(place) for place in named.values()]
    drawn = stage.plot and drawable()
    name = key(stage.run, [*files, *contents], [*values, ("paths", sorted(named)), ("plot", drawn)])
    found = kept(store, name)
    if found is not None:
        return found
    work = fresh(store)
    try:
        command = [stage.run, *map(str, files), *_words(stage, catalogue, named)]
        if ROLES[stage.run].changes and _gives(stage):
            command += ["-o", str(work / "model.onnx")]
        if drawn:
            command += ["--plot", str(work / "plot.png")]
        code, document = _run(stage, command)
        return keep(store, name, work, code, document)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def drawable() -> bool:
    """Whether pictures can be made; a chain goes on without them, and its report says so."""
    return find_spec("matplotlib") is not None


def _gives(stage: Stage) -> bool:
    """A condense stage without a target measures only."""
    return stage.run != "condense" or any(k in stage.options for k in ("merge", "lose", "at-most"))


def _words(stage: Stage, catalogue: Catalogue, named: dict[str, str]) -> list[str]:
    """The options as the command line takes them."""
    words: list[str] = []
    for name, value in stage.options.items():
        flag = catalogue[stage.run][name].flag
        if isinstance(value, bool):
            words += [flag] * value
        elif isinstance(value, tuple):
            words += [word for v in value for word in (flag, v)]
        else:
            words += [flag, named.get(name, str(value))]
    return words


def _run(stage: Stage, command: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """The command in a process of its own, whose memory and threads end with it."""
    ran = subprocess.run(
        [sys.executable, "-m", "sutura", *command, "--json"], capture_output=True, text=True, check=False
    )
    if ran.returncode not in ROLES[stage.run].settled:
        said = " ".join(ran.stderr.split())[-600:] or f"it ended with code {ran.returncode}"
        raise RecipeError(f"stage {stage.run}: {said}")
    try:
        return ran.returncode, json.loads(ran.stdout)
    except ValueError:
        raise RecipeError(
            f"stage {stage.run} gave no JSON; run it alone: sutura {' '.join(command)}"
        ) from None
