"""The training loop: what it computes, that it repeats itself, and what it refuses."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch extra not installed: pip install 'sutura[torch]'")
pytest.importorskip("safetensors", reason="torch extra not installed: pip install 'sutura[torch]'")

from torch import nn  # noqa: E402

from sutura.dataset import Dataset  # noqa: E402
from sutura.errors import DataError, TrainingError  # noqa: E402
from sutura.training.config import OPTIMISERS, SCHEDULES, TrainConfig  # noqa: E402
from sutura.training.samples import Targets  # noqa: E402
from sutura.training.train import Objective, squared_error, train  # noqa: E402


def blobs(count=60, classes=3, seed=0):
    """Points about the corners of a triangle."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=count)
    centres = np.array([[0, 0], [4, 0], [0, 4]])[y % 3]
    x = (centres + rng.normal(size=(count, 2))).astype(np.float32)
    return Dataset("blobs.npz", x, y.astype(np.int64))


def net(seed=0, drop=0.2):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Dropout(drop), nn.Linear(16, 3))


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_one_step_of_gradient_descent_is_the_one_by_hand():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(2.0)
    data = Targets("line", np.array([[1.0], [3.0]], np.float32), np.array([[1.0], [2.0]], np.float32))
    config = TrainConfig(epochs=1, batch=None, rate=0.1, optimiser="sgd")
    trained = train(module, data, config, loss=squared_error)
    # d/dw of ((w-1)^2 + (3w-2)^2)/2 at w=2 is 1 + 12 = 13; the loss is (1 + 16)/2
    assert trained.module.weight.item() == pytest.approx(2.0 - 0.1 * 13.0)
    assert trained.losses == (8.5,)
    assert module.weight.item() == 2.0
    assert not trained.module.training


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_optimiser_learns_and_repeats_itself(optimiser):
    data, module = blobs(), net()
    config = TrainConfig(epochs=30, batch=10, rate=0.01, optimiser=optimiser, momentum=0.5)
    first, again = train(module, data, config), train(module, data, config)
    assert same(weights(first.module), weights(again.module))
    assert first.losses == again.losses
    assert first.losses[-1] < 0.6 * first.losses[0]
    other = train(module, data, replace(config, seed=1))
    assert not same(weights(first.module), weights(other.module))


def test_callers_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(net(seed=3), blobs(), TrainConfig(epochs=1))
    torch.manual_seed(3)
    train(nn.Sequential(nn.Flatten(), nn.Linear(2, 3)).requires_grad_(True), blobs(), TrainConfig(epochs=1))
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("name", "half"), [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5), ("steps", 0.1)]
)
def test_schedules_scale_the_rate(name, half):
    assert SCHEDULES[name](0.0) == 1.0
    assert SCHEDULES[name](0.5) == pytest.approx(half)
    rates = []
    config = TrainConfig(epochs=2, batch=30, rate=0.2, optimiser="sgd", schedule=name)
    train(net(), blobs(), config, loss=Objective(after=lambda m, x, y, at: rates.append(at.rate)))
    assert rates == pytest.approx([0.2 * SCHEDULES[name](done) for done in (0.0, 0.25, 0.5, 0.75)])


def test_a_step_after_each_step_and_functions_for_names():
    def clamp(module, x, y, at):
        with torch.no_grad():
            module.weight.clamp_(-0.1, 0.1)

    config = TrainConfig(
        epochs=3, optimiser=lambda m, c: torch.optim.SGD(m.parameters(), lr=c.rate), schedule=lambda done: 1.0
    )
    trained = train(nn.Linear(2, 3), blobs(), config, loss=Objective(after=clamp))
    assert trained.module.weight.abs().max() <= 0.1


def test_listeners_hear_every_so_many_epochs_and_the_last(tmp_path):
    heard = []
    train(
        net(),
        blobs(),
        TrainConfig(epochs=5, every=2),
        listen=heard.append,
        checkpoint=tmp_path / "c.safetensors",
    )
    assert [(e.done, e.epochs) for e in heard] == [(2, 5), (4, 5), (5, 5)]
    assert all(math.isfinite(e.loss) for e in heard)


def test_batch_norm_never_sees_a_batch_of_one():
    train(net(), blobs(count=21), TrainConfig(epochs=1, batch=10))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_run_goes_on_from_its_checkpoint_with_the_same_result(tmp_path, optimiser):
    place, data, module = tmp_path / "run.safetensors", blobs(), net()
    config = TrainConfig(epochs=6, batch=10, optimiser=optimiser, momentum=0.9, schedule="cosine")
    whole = train(module, data, config)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(event):
        if event.done == 3:
            raise Stop

    with pytest.raises(Stop):
        train(module, data, config, listen=stop, checkpoint=place)
    resumed = train(module, data, config, checkpoint=place)
    assert resumed.resumed == 3
    assert resumed.losses == whole.losses
    assert same(weights(resumed.module), weights(whole.module))
    assert train(module, data, config, checkpoint=place).resumed == 6


def test_weights_in_another_memory_format_are_kept_too(tmp_path):
    rng = np.random.default_rng(0)
    data = Dataset("d.npz", rng.random((8, 2, 4, 4), dtype=np.float32), np.arange(8) % 2)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    module = module.to(memory_format=torch.channels_last)
    place, config = tmp_path / "run.safetensors", TrainConfig(epochs=2, batch=4)
    first, again = (train(module, data, config, checkpoint=place) for _ in range(2))
    assert again.resumed == 2
    assert same(weights(first.module), weights(again.module))


SLOW = """
import sys, time, pathlib
sys.path.insert(0, sys.argv[1])
from test_train import blobs, net, TrainConfig, train
train(net(), blobs(), TrainConfig(epochs=40, batch=10), listen=lambda e: time.sleep(0.05),
      checkpoint=pathlib.Path(sys.argv[2]))
"""


def test_a_killed_run_ends_with_the_same_weights(tmp_path):
    place = tmp_path / "killed.safetensors"
    command = [sys.executable, "-c", SLOW, str(Path(__file__).parent), str(place)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONWARNINGS": "ignore"}) as process:
        deadline = time.monotonic() + 60
        while not place.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    config = TrainConfig(epochs=40, batch=10)
    resumed = train(net(), blobs(), config, checkpoint=place)
    assert 1 <= resumed.resumed < 40
    assert same(weights(resumed.module), weights(train(net(), blobs(), config).module))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    place = tmp_path / "run.safetensors"
    train(net(), blobs(), TrainConfig(epochs=1), checkpoint=place)
    for module, data, config in (
        (net(seed=1), blobs(), TrainConfig(epochs=1)),
        (net(), blobs(seed=1), TrainConfig(epochs=1)),
        (net(), blobs(), TrainConfig(epochs=2)),
    ):
        with pytest.raises(TrainingError, match=r"run\.safetensors is the checkpoint of another run"):
            train(module, data, config, checkpoint=place)


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_damaged_checkpoint_is_refused(tmp_path, cut):
    place = tmp_path / "run.safetensors"
    train(net(), blobs(), TrainConfig(epochs=1), checkpoint=place)
    place.write_bytes(place.read_bytes()[:cut])
    with pytest.raises(TrainingError, match="no checkpoint"):
        train(net(), blobs(), TrainConfig(epochs=1), checkpoint=place)


def bad(change):
    data = blobs()
    x, y = data.x.copy(), data.y.copy()
    return Dataset("bad.npz", *change(x, y))


def put(array, index, value):
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bad(lambda x, y: (put(x, (4, 1), np.nan), y)), "x holds NaN or infinities in sample 4"),
        (
            bad(lambda x, y: (x, put(y, 7, 3))),
            "label 3 of sample 7 is out of range; the network has 3 classes",
        ),
        (bad(lambda x, y: (x, put(y, 7, -1))), "label -1 of sample 7"),
        (bad(lambda x, y: (x.repeat(2, axis=1), y)), "does not take samples of shape (4,)"),
        (bad(lambda x, y: (x.astype(np.float64), y)), "x is float64"),
        (bad(lambda x, y: (x, y[:-1])), "60 samples but 59 labels"),
        (bad(lambda x, y: (x, None)), "has no labels"),
        (bad(lambda x, y: (x[:0], y[:0])), "x is float32 of shape (0, 2)"),
        (Targets("bad.npz", blobs().x, np.zeros((60, 2), np.float32)), "the network gives float32 (3,)"),
        (Targets("bad.npz", blobs().x, np.full((60, 3), np.inf, np.float32)), "y holds NaN or infinities"),
    ],
)
def test_bad_data_are_refused_in_one_line(data, said):
    with pytest.raises(DataError) as caught:
        train(net(), data, TrainConfig(epochs=1))
    assert said in str(caught.value)
    assert str(caught.value).startswith("bad.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (TrainConfig(optimiser="adamm"), "no optimiser is called 'adamm'; did you mean 'adam'?"),
        (TrainConfig(schedule="zzz"), "no schedule is called 'zzz'"),
        (TrainConfig(rate=0.0), "rate=0.0"),
        (TrainConfig(rate=math.nan), "rate=nan"),
        (TrainConfig(epochs=0), "epochs=0"),
        (TrainConfig(batch=0), "batch=0"),
        (TrainConfig(momentum=1.0), "momentum=1.0"),
        (TrainConfig(device="nowhere"), "device='nowhere' cannot be used"),
    ],
)
def test_bad_settings_are_refused(config, said):
    with pytest.raises(TrainingError) as caught:
        train(net(), blobs(), config)
    assert said in str(caught.value)


def test_divergence_is_refused_with_the_place():
    data = Targets("line", np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))
    config = TrainConfig(epochs=50, rate=1e30, optimiser="sgd")
    with pytest.raises(TrainingError, match=r"in epoch 2, step 1 of 1; give a rate below 1e\+30"):
        train(nn.Linear(1, 1), data, config, loss=squared_error)
