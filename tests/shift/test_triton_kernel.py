"""The Triton kernel in Triton's interpreter, in a process of its own because that is chosen at import."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

CHECK = """
import numpy as np, torch
from sutura.shift.grid import Grid
from sutura.shift.layout import laid_out
from sutura.shift.pack import Packed
from sutura.shift.triton_kernel import product

rng = np.random.default_rng(0)
for bits in (5, 4, 3):
    for zero in (False, True):
        for shape in ((3, 5), (17, 130), (20, 300)):
            codes = rng.integers(0, 1 << bits, shape).astype(np.uint8)
            part = Packed(shape, Grid(bits, zero), codes, rng.uniform(0.5, 2, shape[0]).astype(np.float32))
            held = laid_out(part)
            signs = torch.empty(0, dtype=torch.uint8) if held.signs is None else torch.tensor(held.signs)
            x = torch.randn(2, shape[1])
            got = product(x, torch.tensor(held.fields), signs, torch.tensor(held.tables),
                          torch.tensor(held.scale), held.columns)
            want = x.double() @ torch.tensor(part.rows()).double().T
            size = x.double().abs() @ torch.tensor(part.rows()).double().abs().T
            assert ((got - want).abs() <= 1e-5 * size).all(), (bits, zero, shape)
print("agrees")
"""


def test_it_equals_the_plain_product():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: pip install triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", CHECK],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout == "agrees\n"
