"""The recipes of examples/recipes: killed inside every stage they go on to the same artefacts.

Those of ACAS Xu and MNIST at their full size are in benchmarks/ship_kills.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from synthetic_images import classifier, images

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def ship_kills():
    spec = importlib.util.spec_from_file_location("ship_kills", ROOT / "benchmarks" / "ship_kills.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KILLS = ship_kills()


def small_images(folder):
    """The MNIST recipe as it is, with small synthetic images for MNIST's."""
    import torch

    from sutura.network.onnx_write import write_onnx
    from sutura.network.torch_read import from_torch

    x, y = images(700, 0)
    held = {"x_train": x[:500], "y_train": y[:500], "x_test": x[500:], "y_test": y[500:]}
    network = folder / "trained.onnx"
    network.write_bytes(write_onnx(from_torch(classifier(x[:500], y[:500]), torch.tensor(x[:2]))))
    said = argparse.Namespace(train=200, test=150, images=6, few=3, radius=0.02)
    KILLS.prepare().images(network, held, folder, said)
    return [str(shutil.copy(EXAMPLES / "recipes" / "mnist.toml", folder))]


STARTS = {"module": lambda folder: KILLS.module_recipe(folder, None), "mnist": small_images}


@pytest.mark.parametrize("name", STARTS)
def test_killed_inside_every_stage_it_goes_on_to_the_same_artefacts(tmp_path, name):
    words = STARTS[name](tmp_path)
    with KILLS.started(words, tmp_path / "whole") as run:
        code = run.wait(timeout=500)
    assert code in (0, 3), (tmp_path / "whole.log").read_text()[-2000:]
    again, kills = KILLS.killed(words, tmp_path / "killed")
    assert again == code
    assert kills >= 4
    left, right = (KILLS.artefacts(tmp_path / run) for run in ("whole", "killed"))
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []
    assert {"model.onnx", "model.safetensors", "recipe.toml", "report.json"} <= left.keys()


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
