"""Recipes: a TOML file that names the network, the properties and the stages, in the commands' own words."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sutura.errors import RecipeError
from sutura.ship.catalogue import RESERVED, ROLES, Catalogue, Option, Value

TOP = ("name", "network", "external-data", "module", "properties", "stage")
MODULE = ("source", "input", "weights")


@dataclass(frozen=True, slots=True)
class Stage:
    """One command with every option that has a value, defaults included; `plot` asks for its picture."""

    run: str
    options: Mapping[str, Value]
    plot: bool


@dataclass(frozen=True, slots=True)
class ModuleSource:
    """A PyTorch module: `function` of a Python `file` makes it, `weights` (safetensors) fill it.

    `input` is the shape of one sample.
    """

    file: Path
    function: str
    input: tuple[int, ...]
    weights: Path | None

    @property
    def name(self) -> str:
        """As a recipe spells it."""
        return f"{self.file.name}:{self.function}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to ship: a network file or a module, properties as files, all beside or below `folder`.

    With `external_data` the network file's weights may lie in files beside it.
    """

    name: str
    folder: Path
    start: Path | ModuleSource
    properties: tuple[Path, ...]
    stages: tuple[Stage, ...]
    external_data: bool = False


def read_recipe(path: Path, catalogue: Catalogue, *, run_code: bool = False) -> Recipe:
    """Read a recipe; paths in it are relative to its own folder, and properties may be patterns (`*.vnnlib`).

    Raises RecipeError in one line: no TOML, a key that is not known (with the nearest that is), a value of
    the wrong kind, a file that is not there, a stage that needs properties where there are none, or a module
    without `run_code`, for its file is run.
    """
    try:
        text = path.read_bytes().decode()
        said = tomllib.loads(text)
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path.name} is no TOML: {error}") from None
    _known(path.name, said, TOP)
    folder = path.resolve().parent
    for key, kind in KINDS.items():
        if key in said and not isinstance(said[key], kind):
            wanted = {str: "text", list: "a list", dict: "a table", bool: "true or false"}[kind]
            raise RecipeError(f"{path.name}: {key} = {said[key]!r}; give {wanted}")
    if ("network" in said) == ("module" in said) or not said.get("stage"):
        raise RecipeError(
            f'{path.name} needs network = "net.onnx" (or a table [module]) and at least one [[stage]]'
        )
    stages = tuple(_stage(path.name, at, table, catalogue) for at, table in enumerate(said["stage"], start=1))
    properties = _properties(path.name, folder, said.get("properties", []))
    for stage in stages:
        if "properties" in ROLES[stage.run].reads and not properties:
            raise RecipeError(f'{path.name}: stage {stage.run} needs properties = ["p.vnnlib"] at the top')
    if "module" in said and "external-data" in said:
        raise RecipeError(f"{path.name}: external-data is of a network file, and there is a [module]")
    if "module" in said:
        start = _module(path.name, folder, said["module"], run_code=run_code)
        return Recipe(said.get("name", start.function), folder, start, properties, stages)
    network = _file(path.name, folder, said["network"])
    beside = said.get("external-data", False)
    return Recipe(said.get("name", network.stem), folder, network, properties, stages, beside)


def _module(where: str, folder: Path, table: Mapping[str, Any], *, run_code: bool) -> ModuleSource:
    _known(f"{where}, [module]", table, MODULE)
    source, shape = table.get("source"), table.get("input")
    if not isinstance(source, str) or not all(source.rpartition(":")):
        raise RecipeError(
            f'{where}, [module]: source = {source!r}; write "net.py:make", a file and a function'
        )
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n > 0 for n in shape):
        raise RecipeError(
            f"{where}, [module]: input = {shape!r}; give the shape of one sample, as [1, 28, 28]"
        )
    file, _, function = source.rpartition(":")
    weights = None if "weights" not in table else _file(where, folder, str(table["weights"]))
    if not run_code:
        raise RecipeError(f"{where} runs the Python file {file}; where you trust it, add --run-code")
    return ModuleSource(_file(where, folder, file), function, tuple(shape), weights)


def _properties(where: str, folder: Path, names: Sequence[Any]) -> tuple[Path, ...]:
    """The files named, patterns in the order of their files' names; no two of one name."""
    found: list[Path] = []
    for name in map(str, names):
        matching = (
            sorted(folder.glob(name)) if any(c in name for c in "*?[") else [_file(where, folder, name)]
        )
        if not matching:
            raise RecipeError(f"{where}: no file matches {name}; patterns are relative to the recipe")
        found += matching
    for place in found:
        if sum(place.name == other.name for other in found) > 1:
            raise RecipeError(f"{where}: two properties are called {place.name}; give each its own file name")
    return tuple(found)


def _known(where: str, table: Mapping[str, Any], names: Collection[str]) -> None:
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"{where}: unknown key {key!r}{hint} known: {', '.join(sorted(names))}")


def _file(where: str, folder: Path, name: str) -> Path:
    place = folder / name
    if not place.is_file():
        raise RecipeError(f"{where}: there is no file {name} beside it; paths are relative to the recipe")
    return place


def _stage(where: str, at: int, table: Any, catalogue: Catalogue) -> Stage:
    place = f"{where}, stage {at}"
    run = str(table.get("run")) if isinstance(table, dict) else "nothing"
    if run not in catalogue:
        near = difflib.get_close_matches(run, catalogue, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"{place}: run = {run!r} is no stage{hint} known: {', '.join(sorted(catalogue))}")
    options = {name: option for name, option in catalogue[run].items() if name not in RESERVED}
    _known(f"{place} ({run})", table, ("run", *options))
    plot = table.get("plot", False)
    if not isinstance(plot, bool):
        raise RecipeError(f"{place} ({run}): plot = {plot!r}; give true or false, the file has its own name")
    said = {k: v for k, v in table.items() if k not in ("run", "plot")}
    values = {k: _value(f"{place} ({run})", k, v, options[k]) for k, v in said.items()}
    defaults = {k: o.default for k, o in options.items() if o.default is not None and k != "plot"}
    return Stage(run, dict(sorted((defaults | values).items())), plot)


def _value(place: str, name: str, value: Any, option: Option) -> Value:
    """A value as the command takes it."""
    if option.kind == "flag":
        if not isinstance(value, bool):
            raise RecipeError(f"{place}: {name} = {value!r}; give true or false")
        return value
    if option.repeated and isinstance(value, list):
        return tuple(str(v) for v in value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise RecipeError(f"{place}: {name} = {value!r}; give a number or text")
    return (str(value),) if option.repeated else value


def written(recipe: Recipe) -> str:
    """The recipe as TOML again, with every default that the commands fill in."""
    lines = [f"name = {_toml(recipe.name)}"]
    if isinstance(recipe.start, Path):
        lines.append(f"network = {_toml(_inside(recipe, recipe.start))}")
        lines += ["external-data = true"] * recipe.external_data
    if recipe.properties:
        lines.append(f"properties = {_toml(tuple(_inside(recipe, p) for p in recipe.properties))}")
    if isinstance(recipe.start, ModuleSource):
        file = _inside(recipe, recipe.start.file)
        lines += ["", "[module]", f"source = {_toml(f'{file}:{recipe.start.function}')}"]
        lines.append(f"input = {list(recipe.start.input)}")
        if recipe.start.weights is not None:
            lines.append(f"weights = {_toml(_inside(recipe, recipe.start.weights))}")
    for stage in recipe.stages:
        lines += ["", "[[stage]]", f"run = {_toml(stage.run)}"]
        lines += [f"{name} = {_toml(value)}" for name, value in stage.options.items()]
        lines += ["plot = true"] * stage.plot
    return "\n".join(lines) + "\n"


def _inside(recipe: Recipe, place: Path) -> str:
    return str(place.relative_to(recipe.folder)) if place.is_relative_to(recipe.folder) else str(place)


def _toml(value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return '"' + "".join(ESCAPES.get(c, c) for c in value) + '"'
        case _:
            return "[" + ", ".join(_toml(v) for v in value) + "]"


KINDS = {
    "network": str,
    "external-data": bool,
    "properties": list,
    "stage": list,
    "name": str,
    "module": dict,
}
"""Top-level key -> what it holds."""

ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
