"""Exact bytes of certificates and proof trees; the readers of ONNX and VNN-LIB against other readers."""

from __future__ import annotations

import gzip
from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx
import pytest
from exported import leaning
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from sutura.certificate import cells, schema, tree
from sutura.certificate.dispatch import SINGLE_ROW, Dispatch
from sutura.certificate.errors import CertificateError
from sutura.certificate.float32 import round_down, round_up
from sutura.certificate.schema import Certificate, Counts, PropertyEntry
from sutura.certificate.tree import LEAF, Split
from sutura.certificate.vnnlib import Case, read_property
from sutura.certificate.wire import read_model

CERTIFICATE = Certificate(
    "a" * 64,
    "b" * 64,
    (PropertyEntry("p", "c" * 64),),
    b"\x01\x00\x00",
    Counts(2, 1, 1, 0, 3),
    "sutura 0.1.0",
)
BYTES = (
    b'{"assumes":["file-as-hashed","float32-inputs","exact-comparisons","binary32-nearest"],'
    b'"counts":{"gated":1,"leaves":2,"outside":0,"proved":1,"rows":3},"digest":"DIGEST",'
    b'"format":"sutura-certificate","network":{"sha256":"'
    + b"a" * 64
    + b'"},"original":{"sha256":"'
    + b"b" * 64
    + b'"},'
    b'"profile":"float32-any-order","properties":[{"name":"p","sha256":"' + b"c" * 64 + b'"}],'
    b'"tool":"sutura 0.1.0","tree":"AQAA","version":2}'
)


def test_certificate_bytes_are_exactly_these():
    written = schema.dumps(CERTIFICATE)
    assert written == BYTES.replace(b"DIGEST", CERTIFICATE.digest.encode())
    assert schema.loads(written) == CERTIFICATE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version":2}', b'"version":2}\n'),
        (b'"version":2}', b'"version":2.0}'),
        (b'"version":2}', b'"version":true}'),
        (b'"version":2}', b'"version":NaN}'),
        (b'"version":2}', b'"version":1}'),
        (b'"gated":1', b'"gated":-1'),
        (b'"gated":1', b'"gated":true'),
        (b'"gated":1', b'"gated": 1'),
        (b'"gated":1', b'"gated":1,"gated":1'),
        (b"AQAA", b"AQA="),
        (b"AQAA", b"A QAA"),
        (b"any-order", b"one-order"),
        (b"float32-inputs", b"no-such-inputs"),
        (b'["file-as-hashed"', b'[["file-as-hashed"]'),
        (b"aaaa", b"AAAA"),
    ],
)
def test_certificates_in_any_other_form_are_refused(old, new):
    written = schema.dumps(CERTIFICATE)
    assert old in written
    with pytest.raises(CertificateError):
        schema.loads(written.replace(old, new, 1))


def test_what_cannot_be_said_is_not_written():
    for bad in (
        replace(CERTIFICATE, network="A" * 64),
        replace(CERTIFICATE, properties=()),
        replace(CERTIFICATE, profile="float64"),
        replace(CERTIFICATE, tool="two\nlines"),
        replace(CERTIFICATE, counts=Counts(-1, 0, 0, 0, 1)),
    ):
        with pytest.raises(CertificateError):
            schema.dumps(bad)


def test_tree_bytes_are_exactly_these():
    nodes = (Split(0), LEAF, Split(70, 0.5), Split(64), LEAF, LEAF, LEAF)
    assert tree.encode(nodes) == b"\x01\x00" + b"\x8e\x01\x00\x00\x00\x3f" + b"\x81\x01\x00\x00\x00"
    assert tree.decode(tree.encode(nodes)) == nodes


@st.composite
def trees(draw):
    nodes, open_subtrees = [], 1
    while open_subtrees:
        if len(nodes) < 40 and draw(st.booleans()):
            threshold = draw(st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False))
            nodes.append(Split(draw(st.integers(0, 2**24 - 1)), threshold))
            open_subtrees += 1
        else:
            nodes.append(LEAF)
            open_subtrees -= 1
    return tuple(nodes)


@given(trees())
def test_trees_come_back(nodes):
    assert tree.decode(tree.encode(nodes)) == nodes


@given(st.binary(max_size=40))
def test_a_tree_has_one_encoding(data):
    try:
        nodes = tree.decode(data)
    except CertificateError:
        return
    assert tree.encode(nodes) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00",
        b"\x01\x00",
        b"\x81\x00\x00\x00",
        b"\x02\x00\x00",
        b"\xff" * 9,
        b"\x02\x00\x00\x80\x7f\x00\x00",
    ],
)
def test_malformed_trees_are_refused(data):
    with pytest.raises(CertificateError):
        tree.decode(data)


def test_deep_trees_are_refused_quickly():
    with pytest.raises(CertificateError, match="deeper"):
        tree.decode(b"\x01" * 100_000)
    with pytest.raises(CertificateError):
        tree.encode([Split(0, 0.1)])
    with pytest.raises(CertificateError, match="missing"):
        tree.encode([Split(0, 0.5), LEAF])


@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_midpoints_divide(a, b):
    low, high = min(a, b), max(a, b)
    if low == high:
        with pytest.raises(CertificateError):
            tree.midpoint(low, high)
        return
    middle = tree.midpoint(low, high)
    assert low <= middle < high
    assert np.float32(middle) == middle
    assert tree.next_above(middle) == np.nextafter(np.float32(middle), np.float32(np.inf))
    assert middle < tree.next_above(middle) <= high


@given(st.fractions(min_value=-(10**30), max_value=10**30))
def test_directed_rounding(value):
    low, high = round_down(value), round_up(value)
    assert Fraction(low) <= value <= Fraction(high)
    assert low == high or tree.next_above(low) == high


@given(trees(), st.lists(st.floats(-4, 4, width=32), min_size=3, max_size=3))
@settings(max_examples=60)
def test_every_point_lies_in_exactly_one_leaf(nodes, point):
    nodes = [Split(n.dim % 3, n.threshold) if isinstance(n, Split) else n for n in nodes]
    everywhere = Case((-5.0,) * 3, (5.0,) * 3, ())
    try:
        found = list(cells.leaves(nodes, 3, [everywhere], SINGLE_ROW))
    except CertificateError:
        return
    holds = [
        all(lo <= x <= hi for x, lo, hi in zip(point, duty.lower, duty.upper, strict=True))
        for duties in found
        for duty in duties
    ]
    assert holds.count(True) == 1


@given(st.integers(0, 10**9))
@settings(max_examples=30, deadline=None)
def test_rows_carried_down_equal_rows_by_evaluation(seed):
    rng = np.random.default_rng(seed)
    dim, threshold, left, right = [], [], [], []

    def grow(depth):
        at = len(dim)
        for column, value in ((dim, -1), (threshold, 0.0), (left, at), (right, 0)):
            column.append(value)
        if depth and rng.random() < 0.8:
            dim[at], threshold[at] = int(rng.integers(2)), float(np.float32(rng.uniform(-1, 1)))
            left[at], right[at] = grow(depth - 1), grow(depth - 1)
        return at

    grow(4)
    dispatch = Dispatch(tuple(dim), tuple(threshold), tuple(left), tuple(right))
    nodes = (Split(0, 0.0), Split(1), LEAF, LEAF, Split(1, 0.25), LEAF, LEAF)
    nodes = (Split(0, -1.5), LEAF, Split(0, 1.5), Split(1, -1.5), LEAF, Split(1, 1.5), *nodes, LEAF, LEAF)
    case = Case((-1.0, -1.0), (1.0, 1.0), ())
    for duties in cells.leaves(nodes, 2, [case], dispatch):
        for duty in duties:
            x = rng.uniform(duty.lower, duty.upper, (30, 2)).astype(np.float32)
            x = np.clip(x, duty.lower, duty.upper)
            for point in x:
                at = 0
                while dim[at] >= 0:
                    at = left[at] if point[dim[at]] <= threshold[at] else right[at]
                assert left[at] in duty.rows


def test_splits_outside_of_their_cell_are_refused():
    case = Case((-1.0,), (1.0,), ())
    for nodes in (
        (Split(0), LEAF, LEAF),
        (Split(1, 0.0), LEAF, LEAF),
        (Split(0, 0.0), Split(0, 0.0), LEAF, LEAF, LEAF),
    ):
        with pytest.raises(CertificateError):
            list(cells.leaves(nodes, 1, [case], SINGLE_ROW))


def test_onnx_is_read_as_its_own_parser_reads_it():
    draft = leaning()
    draft.mending, draft.output = [], "sutura.raw"
    data = draft.save()
    ours, theirs = read_model(data), onnx.load_from_string(data)
    assert [(n.op, n.inputs, n.outputs) for n in ours.nodes] == [
        (n.op_type, tuple(n.input), tuple(n.output)) for n in theirs.graph.node
    ]
    for node, other in zip(ours.nodes, theirs.graph.node, strict=True):
        for attribute in other.attribute:
            value = onnx.helper.get_attribute_value(attribute)
            found = node.attributes[attribute.name]
            assert found == (tuple(value) if isinstance(value, list) else value), attribute.name
    assert set(ours.constants) == {t.name for t in theirs.graph.initializer}
    for tensor in theirs.graph.initializer:
        wanted = numpy_helper.to_array(tensor)
        assert ours.constants[tensor.name].dtype == wanted.dtype
        assert np.array_equal(ours.constants[tensor.name], wanted)


def test_numbers_may_also_stand_in_typed_lists():
    tensors = [
        onnx.helper.make_tensor("f", onnx.TensorProto.FLOAT, [3], [1.5, -2, 0.25]),
        onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [2], [-1, 7]),
    ]
    model = onnx.load_from_string(leaning().save())
    model.graph.initializer.extend(tensors)
    found = read_model(model.SerializeToString()).constants
    assert found["f"].tolist() == [1.5, -2, 0.25]
    assert found["i"].tolist() == [-1, 7]


def test_every_shared_network_is_read_like_its_own_parser(shared_data):
    for path in sorted((shared_data / "vnncomp").rglob("*.onnx"))[::3]:
        theirs = onnx.load(path)
        ours = read_model(path.read_bytes())
        assert len(ours.nodes) == len(theirs.graph.node)
        for tensor in theirs.graph.initializer:
            assert np.array_equal(ours.constants[tensor.name], numpy_helper.to_array(tensor))


def test_shared_properties_are_read(shared_data):
    paths = sorted(shared_data.rglob("*.vnnlib")) + sorted(shared_data.rglob("*.vnnlib.gz"))[::25]
    assert len(paths) > 20
    for path in paths:
        data = path.read_bytes()
        found = read_property(gzip.decompress(data) if path.suffix == ".gz" else data)
        assert all(case.unsafe for case in found.cases)


def test_acas_properties_by_hand(shared_data):
    second = read_property((shared_data / "acasxu" / "vnnlib" / "prop_2.vnnlib").read_bytes())
    assert (second.inputs, second.outputs, len(second.cases)) == (5, 5, 1)
    (case,) = second.cases
    assert case.lower[0] == float(np.nextafter(np.float32(0.6), np.float32(0)))
    assert case.upper[1] == 0.5
    ((first, *rest),) = case.unsafe
    assert (first.terms, first.bound, first.strict) == (((0, Fraction(-1)), (1, Fraction(1))), 0, False)
    assert len(rest) == 3
    sixth = read_property((shared_data / "acasxu" / "vnnlib" / "prop_6.vnnlib").read_bytes())
    assert len(sixth.cases) == 2
    assert {len(case.unsafe) for case in sixth.cases} == {4}


HEADER = b"(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 (/ -1 3)))"


def test_terms_are_exact():
    found = read_property(HEADER + b"(assert (not (> (+ (* 2 Y_0) 1e-3 (- 0.5)) (- Y_0))))")
    ((inequality,),) = found.cases[0].unsafe
    assert inequality.terms == ((0, Fraction(3)),)
    assert inequality.bound == Fraction(499, 1000)
    assert not inequality.strict
    assert found.cases[0].lower == (round_down(Fraction(-1, 3)),)


@pytest.mark.parametrize(
    "text",
    [
        b"(assert (<= X_0 Y_0))",
        b"(assert (<= Y_1 0))",
        b"(assert (<= Y_0 1e999999999))",
        b"(assert (<= Y_0 nan))",
        b"(assert (<= (* Y_0 Y_0) 1))",
        b"(assert (<= Y_0 (/ 1 0)))",
        b"(assert (<= 0 1))",
        b"(assert (xor (<= Y_0 0) (<= Y_0 1)))",
        b"(assert (<= Y_0 0)",
        b"(assert (<= Y_0 0)))",
        b"(declare-const X_2 Real)(assert (<= Y_0 0))",
        b"(assert (<= X_0 -5))(assert (<= Y_0 0))",
        b"(" * 100_000,
        b"(assert (or (<= Y_0 0) (<= Y_0 1)))" * 40,
    ],
)
def test_other_properties_are_refused(text):
    with pytest.raises(CertificateError):
        read_property(HEADER + text)
