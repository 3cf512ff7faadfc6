"""The network file that a chain starts from: the recipe's own, or one made of its weights or its module."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sutura.errors import RecipeError
from sutura.extras import require
from sutura.network.onnx_write import write_onnx
from sutura.network.read import network_bytes
from sutura.ship.recipe import ModuleSource, Recipe
from sutura.ship.store import fresh, keep, kept, key

if TYPE_CHECKING:
    from torch import nn

LOADED_AS = "sutura_recipe_module"


def origin(recipe: Recipe, store: Path) -> Path:
    """The file of the network before any stage.

    A network with weights beside its file becomes one file, and a module is exported; both are kept like a
    stage's result, under the digests of all bytes that went in (of a module not what its file imports).
    Raises RecipeError where the module's file cannot be run or makes no module, NetworkError where weights
    or module are refused, MissingExtraError for a module without torch.
    """
    source = recipe.start
    if isinstance(source, ModuleSource):
        files = [source.file] if source.weights is None else [source.file, source.weights]
        name = key("module", files, [("function", source.function), ("input", source.input)])
        return _once(store, name, lambda: _exported(source))
    if not recipe.external_data or source.suffix.lower() != ".onnx":
        return source
    whole = network_bytes(source, external_data=True)
    name = key("whole", [], [("sha256", hashlib.sha256(whole).hexdigest())])
    return _once(store, name, lambda: whole)


def _once(store: Path, name: str, made: Callable[[], bytes]) -> Path:
    found = kept(store, name)
    if found is None:
        work = fresh(store)
        try:
            (work / "model.onnx").write_bytes(made())
            found = keep(store, name, work, 0, {})
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    return found.network


def _exported(source: ModuleSource) -> bytes:
    torch = require("torch", "torch")
    from sutura.network.torch_read import from_torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = _made(source, torch)
    if source.weights is not None:
        _fill(module, source.weights)
    return write_onnx(from_torch(module.eval(), torch.zeros(1, *source.input)))


def _made(source: ModuleSource, torch: Any) -> nn.Module:
    spec = importlib.util.spec_from_file_location(LOADED_AS, source.file)
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules[LOADED_AS] = code  # dataclasses and torch.export look a class's module up there
    try:
        spec.loader.exec_module(code)
        if not callable(made := getattr(code, source.function, None)):
            near = difflib.get_close_matches(source.function, vars(code), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"{source.file.name} has no function {source.function!r}{hint}")
        module = made()
    except RecipeError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever the user's own code raises
        said = " ".join(str(error).split())[:300]
        raise RecipeError(f"{source.name} raised {type(error).__name__}: {said}") from None
    module_class: type[nn.Module] = torch.nn.Module
    if not isinstance(module, module_class):
        raise RecipeError(f"{source.name} gave a {type(module).__name__}; it must return a torch.nn.Module")
    return module


def _fill(module: nn.Module, weights: Path) -> None:
    load = require("safetensors.torch", "torch").load_file
    try:
        module.load_state_dict(load(weights))
    except Exception as error:  # noqa: BLE001 -- safetensors' own errors have no common class
        said = " ".join(str(error).split())[:300]
        raise RecipeError(f"{weights.name} does not fill the module: {said}") from None
