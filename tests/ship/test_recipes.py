"""The recipes of examples/recipes: killed at every stage they go on to the same artefacts."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from networks import classifier, images

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
MEASURED = {"seconds", "runtime_seconds", "torch_seconds", "speed", "batch", "picture"}
"""Keys of what a clock decides; pictures may show it."""


def prepare():
    """The script beside the recipes, as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("prepare", EXAMPLES / "recipes" / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_recipe(folder, request):
    for name in ("recipes", "vertical_cas"):
        shutil.copytree(EXAMPLES / name, folder / name)
    return folder / "recipes" / "module.toml", ("--run-code",)


def mnist_recipe(folder, request):
    """The recipe as it is, with small synthetic images for MNIST's."""
    from sutura.network.onnx_write import write_onnx
    from sutura.network.torch_read import from_torch

    x, y = images(700, 0)
    held = {"x_train": x[:500], "y_train": y[:500], "x_test": x[500:], "y_test": y[500:]}
    import torch

    network = folder / "trained.onnx"
    network.write_bytes(write_onnx(from_torch(classifier(x[:500], y[:500]), torch.tensor(x[:2]))))
    said = argparse.Namespace(train=200, test=150, images=6, few=3, radius=0.02)
    prepare().images(network, held, folder, said)
    shutil.copy(EXAMPLES / "recipes" / "mnist.toml", folder)
    return folder / "mnist.toml", ()


def acasxu_recipe(folder, request):
    data = request.getfixturevalue("shared_data") / "acasxu"
    places = [data / "vnnlib" / f"prop_{n}.vnnlib" for n in (3, 4)]
    prepare().acasxu(data / "onnx" / "ACASXU_run2a_1_1_batch_2000.onnx", places, folder)
    shutil.copy(EXAMPLES / "recipes" / "acasxu.toml", folder)
    return folder / "acasxu.toml", ()


RECIPES = {"module": module_recipe, "mnist": mnist_recipe, "acasxu": acasxu_recipe}


def shipping(recipe, out, flags):
    command = [sys.executable, "-m", "sutura", "ship", str(recipe), "-o", str(out), *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)


def artefacts(out):
    """Files by name; the report without what a clock decided."""
    found = {
        str(place.relative_to(out)): place.read_bytes()
        for place in out.rglob("*")
        if place.is_file()
        and ".stages" not in place.parts
        and place.name not in ("SHA256SUMS", "report.html")
    }
    found.pop("README.md")  # tells run times too
    found["report.json"] = json.dumps(timeless(json.loads(found["report.json"])), sort_keys=True).encode()
    return found


def timeless(value):
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in MEASURED}
    return [timeless(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", RECIPES)
def test_killed_at_every_stage_it_goes_on_to_the_same_artefacts(tmp_path, request, name):
    recipe, flags = RECIPES[name](tmp_path, request)
    whole = shipping(recipe, tmp_path / "whole", flags)
    _, said = whole.communicate(timeout=500)
    assert whole.returncode in (0, 3), said.decode()
    out, seen, kills = tmp_path / "out", 0, 0
    while True:
        run = shipping(recipe, out, flags)
        # Killed as soon as one more stage than before was kept: once inside every stage but the first.
        while run.poll() is None and len(list(out.glob(".stages/[0-9a-f]*/stage.json"))) <= seen:
            time.sleep(0.01)
        if run.poll() is not None:
            break
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        seen, kills = len(list(out.glob(".stages/[0-9a-f]*/stage.json"))), kills + 1
    assert run.returncode == whole.returncode
    assert kills >= 3
    assert artefacts(out) == artefacts(tmp_path / "whole")
    weights = tmp_path / "whole" / "model.safetensors"
    assert weights.is_file()


def test_the_torch_form_computes_what_the_file_does(tmp_path):
    import torch
    from safetensors.torch import load_file

    import sutura
    from sutura.network.run import open_session, run
    from sutura.network.torch_write import to_module
    from sutura.ship.weights import torch_weights

    place = EXAMPLES / "vertical_cas" / "vertical_cas.onnx"
    (tmp_path / "w.safetensors").write_bytes(torch_weights(place, tmp_path / "store"))
    module = to_module(sutura.load(place).network)
    with torch.no_grad():
        for values in module.parameters():
            values.zero_()
    module.load_state_dict(load_file(tmp_path / "w.safetensors"))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    with torch.no_grad():
        told = module(torch.tensor(x)).numpy()
    assert np.allclose(told, run(open_session(place.read_bytes()), x), atol=1e-5)
    assert torch_weights(place, tmp_path / "store") == torch_weights(place, tmp_path / "other")
