"""Gradients of large networks: the same in one piece and in parts, and those of the program."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from risk_networks import dense, points

pytest.importorskip("torch")

from sutura.bounds.lower import lower
from sutura.risk import torch_slopes as slow
from sutura.risk.model import program_slopes


@pytest.mark.parametrize("kept", [1, 60, 1 << 26])
def test_parts_give_what_the_program_gives(kept):
    net, x = dense((6, 10, 8, 3), 1).network, points(7, 6, 2).astype(np.float64)
    seed = np.random.default_rng(0).normal(size=(7, 3))
    expected, pull = program_slopes(lower(net))(x)
    with mock.patch.object(slow, "KEPT_NUMBERS", kept):
        outputs, pulled = slow.torch_slopes(net)(x)
    assert outputs == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for _ in range(2):
        assert pulled(seed) == pytest.approx(pull(seed), rel=1e-4, abs=1e-5)
