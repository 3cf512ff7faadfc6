"""Repaired files in PyTorch: the guarantee and the bits outside, as in ONNX Runtime, for every batch size."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from small_networks import (  # noqa: E402
    at_most,
    convolution,
    cube,
    just_outside,
    less,
    loaded,
    mlp,
    points,
    prop,
    run_original,
    run_repaired,
)

from sutura.errors import NetworkError  # noqa: E402
from sutura.gates.evaluate import same_bits, violating  # noqa: E402
from sutura.gates.mend import ClampConfig, RepairConfig  # noqa: E402
from sutura.gates.neuron_gate import NeuronConfig  # noqa: E402
from sutura.gates.repair import repair  # noqa: E402
from sutura.gates.torch_module import repaired_module  # noqa: E402
from sutura.property.build import argmax_in, argmin_not_in, robustness  # noqa: E402

DATA = mlp([3, 10, 4], 3)


def in_torch(module, x, shape=(3,)):
    with torch.no_grad():
        return module(torch.from_numpy(x.reshape(len(x), *shape))).numpy().reshape(len(x), -1)


PROPERTIES = {
    "one of two": [argmax_in(cube([-0.5] * 3, [0.5] * 3), [0, 1], outputs=4)],
    "two that overlap": [
        argmax_in(cube([-1] * 3, [0.5] * 3), [0, 1], outputs=4, name="a"),
        argmin_not_in(cube([0, -1, -1], [1, 1, 1]), [2], outputs=4, name="b"),
    ],
    "a sum and a bound": [
        prop(
            "sum",
            3,
            4,
            (cube([-1] * 3, [1] * 3), [[at_most({0: 1, 2: "1/3"}, "0.7")], [at_most({1: -1}, -2)]]),
        ),
        prop("ties", 3, 4, (cube([0] * 3, [2] * 3), [[less(0, 3, strict=True), at_most({1: 2}, 1)]])),
    ],
}


@pytest.mark.parametrize("wanted", PROPERTIES.values(), ids=PROPERTIES)
@given(seed=st.integers(0, 4), count=st.sampled_from([1, 2, 3, 17, 64]), start=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_the_same_promises_in_both_runtimes_for_every_batch_size(wanted, seed, count, start):
    data = mlp([3, 10, 4], seed)
    fixed = repair(loaded(data), wanted, ClampConfig(workers=1)).onnx
    before, after, module = run_original(data), run_repaired(fixed), repaired_module(fixed)
    boxes = [case.box for p in wanted for case in p.cases]
    x = np.concatenate([points(box, count, start + i) for i, box in enumerate(boxes)])
    was, now, again = before(x), after(x), in_torch(module, x)
    right = ~violating(wanted, x, was)
    assert same_bits(was[right], now[right]).all()
    assert not violating(wanted, x, now).any()
    assert not violating(wanted, x, again).any()
    np.testing.assert_allclose(now, again, rtol=1e-4, atol=1e-4)
    alone = np.concatenate([after(row[None]) for row in x])
    assert not violating(wanted, x, alone).any()
    beyond = np.concatenate([just_outside(box, count, start) for box in boxes])
    held = np.zeros(len(beyond), bool)
    for low, high in (box.float32_hull() for box in boxes):
        held |= ((beyond >= low) & (beyond <= high)).all(axis=1)
    free = beyond[~held]
    if len(free):
        assert same_bits(before(free), after(free)).all()
        np.testing.assert_allclose(in_torch(module, free), before(free), rtol=1e-4, atol=1e-5)


def test_held_neurons_are_held_in_torch_too():
    config = RepairConfig(
        gate="neuron", boxes=300, regions=4, workers=1, neuron=NeuronConfig(share=0.4, boxes=400)
    )
    result = repair(loaded(DATA), PROPERTIES["one of two"], config)
    assert result.regions.neuron_gated > 0
    x = points(cube([-0.7] * 3, [0.7] * 3), 2000, 0)
    now, again = run_repaired(result.onnx)(x), in_torch(repaired_module(result.onnx), x)
    np.testing.assert_allclose(now, again, rtol=1e-4, atol=1e-4)
    assert not violating(PROPERTIES["one of two"], x, again).any()


def test_images_and_outputs_of_rank_three():
    data = convolution()
    wanted = [robustness([0.0] * 4, 1.0, 2, classes=5, low=None)]
    fixed = repair(loaded(data), wanted, ClampConfig(workers=1)).onnx
    module = repaired_module(fixed)
    x = points(wanted[0].cases[0].box, 500, 0)
    assert module(torch.zeros(2, 1, 2, 2)).shape == (2, 1, 5)
    again = in_torch(module, x, (1, 2, 2))
    assert not violating(wanted, x, again).any()
    np.testing.assert_allclose(run_repaired(fixed)(x), again, rtol=1e-4, atol=1e-4)


def test_boxes_of_many_inputs_are_compared_in_torch_too():
    data = mlp([150, 8, 5], 0, scale=0.1)
    draw = np.random.default_rng(0)
    wanted = [robustness(draw.random(150), 0.02, k, classes=5, name=f"p{k}") for k in range(4)]
    fixed = repair(loaded(data), wanted, RepairConfig(boxes=0, workers=1)).onnx
    module = repaired_module(fixed)
    boxes = [case.box for p in wanted for case in p.cases]
    x = np.concatenate([points(box, 100, i) for i, box in enumerate(boxes)])
    assert violating(wanted, x, run_original(data)(x)).any()
    assert not violating(wanted, x, in_torch(module, x, (150,))).any()
    free = np.concatenate([just_outside(box, 100, i) for i, box in enumerate(boxes)])
    np.testing.assert_allclose(in_torch(module, free, (150,)), run_original(data)(free), rtol=1e-4, atol=1e-5)


def test_it_is_an_ordinary_module_that_keeps_its_file():
    fixed = repair(loaded(DATA), PROPERTIES["one of two"], ClampConfig(workers=1)).onnx
    module = repaired_module(fixed)
    assert module.onnx == fixed
    assert not module.training
    assert {name for name, _ in module.network.named_parameters()} >= {"gemm0.weight", "gemm1.bias"}
    again = repaired_module(fixed)
    again.load_state_dict(module.state_dict())
    x = points(cube([-1] * 3, [1] * 3), 50, 0)
    assert same_bits(in_torch(module, x), in_torch(again, x)).all()


def test_a_file_without_gates_is_sent_elsewhere():
    with pytest.raises(NetworkError, match="no gates"):
        repaired_module(DATA)
