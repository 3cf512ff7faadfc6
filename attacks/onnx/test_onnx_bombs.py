"""Files that ask for more than they hold: each refused in one line, within two seconds and 512 MB."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import hostile
import pytest

from sutura.errors import NetworkError
from sutura.network.inspect import inspect_onnx
from sutura.network.onnx_read import parse_onnx


@pytest.mark.parametrize("name", hostile.BOMBS)
def test_bomb_is_refused_within_bounds(name, tmp_path):
    build, words = hostile.BOMBS[name]
    built = build()
    path = tmp_path / "hostile.onnx"
    path.write_bytes(built if isinstance(built, bytes) else built.SerializeToString())
    command = [sys.executable, str(Path(hostile.__file__)), str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-500:]
    seconds, said = done.stdout.rstrip("\n").split("\n")
    assert words in said
    assert len(said) < 3000
    assert float(seconds) < hostile.SECONDS


def test_the_smallest_bomb_is_small():
    assert len(hostile.constant_of_shape().SerializeToString()) < 160


def test_inspection_survives_what_reading_refuses():
    report = inspect_onnx(hostile.nested_if(4).SerializeToString(), "nested")
    assert [(n.operator, n.supported) for n in report.nodes] == [("If", False)]
    assert report.output_shape is None
    report = inspect_onnx(hostile.constant_of_shape().SerializeToString(), "bomb")
    assert [n.supported for n in report.nodes] == [False, False]
    assert not report.supported


def test_a_hundred_unsupported_nodes_are_one_line():
    names = ["x", *(f"v{i}" for i in range(100))]
    nodes = [hostile.helper.make_node("Erf", [a], [b], name=f"erf_{b}") for a, b in pairwise(names)]
    data = hostile.model(nodes, output="v99").SerializeToString()
    with pytest.raises(NetworkError, match=r"100 of 100 nodes .*erf_v9'.*and 90 more") as caught:
        parse_onnx(data, "erf.onnx")
    assert "\n" not in str(caught.value)
    assert "erf_v10" not in str(caught.value)
