"""The .nnet format, by hand and against the ONNX files of the same networks."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.evaluate import evaluate
from sutura.network.nnet_read import parse_nnet
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load

TINY = b"""// A comment
// another
2,2,1,2,
2,2,1,
0,
0.0,0.0,
1.0,1.0,
0.5,0.5,3.0,
1.0,1.0,2.0,
1.0,-1.0,
0.5,2.0,
0.25,
-1.0,
10.0,100.0,
0.125,
"""


def line(number, text):
    """TINY with another line `number` (from 1), none where text is None."""
    lines = TINY.split(b"\n")
    lines[number - 1 : number] = [] if text is None else [text]
    return b"\n".join(lines)


def test_by_hand():
    network = parse_nnet(TINY, "tiny.nnet")
    assert [type(n.op) for n in network.nodes] == [
        ops.MatMul,
        ops.AddConstant,
        ops.Relu,
        ops.MatMul,
        ops.AddConstant,
    ]
    # (3, 1): 3 - 1 + 0.25 = 2.25 and 1.5 + 2 - 1 = 2.5; 22.5 + 250 + 0.125. No normalisation anywhere.
    assert evaluate(network, np.array([[3.0, 1.0], [0.0, 1.0]])).tolist() == [[272.625], [100.125]]
    assert network.sha256 == hashlib.sha256(write_onnx(network)).hexdigest()


def test_load_checks_it_too(tmp_path):
    path = tmp_path / "tiny.nnet"
    path.write_bytes(TINY.replace(b"\n", b"\r\n"))
    loaded = load(path)
    assert loaded.original is None
    assert loaded.difference < 1e-4


MALFORMED = {
    "bias_missing": (line(15, None), "ends where weights should stand"),
    "bias_two": (line(12, b"0.25,1,"), "line 12: expected 1 weights, found 2"),
    "comments_only": (b"// nothing\n", "ends where layer count"),
    "empty": (b"", "ends where layer count"),
    "huge_sizes": (
        line(4, b"2,999999999,1,"),
        "line 4: layers must have 1 to 65536 neurons",
    ),
    "huge_line": (line(10, b"1," * 2**21), "line 10: longer"),
    "infinite": (line(10, b"1.0,1e39,"), "line 10: a number is not finite"),
    "layers_many": (line(3, b"999999999,2,1,2,"), "line 3: expected four numbers"),
    "layers_zero": (line(3, b"0,2,1,2,"), "line 3"),
    "means_short": (line(8, b"0.5,0.5,"), "line 8: expected 3 means, found 2"),
    "not_a_number": (line(10, b"1.0,x,"), "line 10: '1.0,x,' is not a list"),
    "not_text": (b"\xff\xfe\x00", "not ASCII"),
    "row_short": (line(10, b"1.0,"), "line 10: expected 2 weights, found 1"),
    "sizes_contradict": (line(4, b"3,2,1,"), "line 4: sizes do not fit line 3"),
    "sizes_negative": (line(4, b"2,-2,1,"), "line 4: expected layer sizes as whole numbers"),
    "trailing": (TINY + b"7.0,\n", "line 16: text after"),
    "underscores": (line(10, b"1_0,1.0,"), "line 10"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_is_refused_with_its_line(name):
    data, words = MALFORMED[name]
    with pytest.raises(NetworkError, match=words) as caught:
        parse_nnet(data, "bad.nnet")
    assert str(caught.value).startswith("'bad.nnet': ")
    assert "\n" not in str(caught.value)


def test_cut_anywhere_is_refused():
    # Without its last digits the last number is another number, and nothing can tell.
    last = TINY.rindex(b"0.125")
    for length in range(last + 1):
        with pytest.raises(NetworkError):
            parse_nnet(TINY[:length], "cut.nnet")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(TINY) - 1), st.integers(0, 255))
def test_one_wrong_byte_is_refused_or_a_network(place, value):
    data = TINY[:place] + bytes([value]) + TINY[place + 1 :]
    try:
        network = parse_nnet(data, "wrong.nnet")
    except NetworkError as error:
        assert "\n" not in str(error)
    else:
        assert evaluate(network, np.zeros((1, 2))).shape == (1, 1)


@pytest.mark.parametrize("which", ["1_1", "2_9", "3_3"])
def test_agrees_with_the_onnx_file(shared_data, which):
    stem = f"ACASXU_run2a_{which}_batch_2000"
    text = load(shared_data / "acasxu" / "nnet" / f"{stem}.nnet").network
    graph = load(shared_data / "acasxu" / "onnx" / f"{stem}.onnx").network
    ends = json.loads((shared_data / "acasxu" / "normalization.json").read_text())[stem]
    low, high, mean, span = (np.array(ends[f"input_{k}"]) for k in ("min", "max", "mean", "range"))
    x = (np.random.default_rng(0).uniform(low, high, (500, 5)) - mean) / span
    difference = evaluate(text, x) - evaluate(graph, x.reshape(-1, 1, 1, 5))
    assert np.max(np.abs(difference)) < 7e-6
