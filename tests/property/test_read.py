"""The one door: version by content, gzip by content, name by stem."""

from __future__ import annotations

import gzip
from fractions import Fraction

import pytest

from sutura.errors import PropertyError
from sutura.property.read import read_property

ONE = b"(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= 0 X_0 1))(assert (<= Y_0 0))"
TWO = b"""; a comment with (vnnlib-version <1.0>)
(vnnlib-version <2.0>)
(declare-network N (declare-input X real [1])(declare-output Y real [1]))
(assert (>= X[0] 0.0))(assert (<= X[0] 1.0))(assert (<= Y[0] 0.0))
"""


@pytest.mark.parametrize("name", ["a.b.vnnlib", "a.b.vnnlib.gz", "a.b"])
@pytest.mark.parametrize("packed", [False, True])
def test_name_and_packing(tmp_path, name, packed):
    place = tmp_path / name
    place.write_bytes(gzip.compress(ONE) if packed else ONE)
    found = read_property(place)
    assert (found.name, found.text) == ("a.b", ONE)
    assert found.cases[0].box.upper == (Fraction(1),)


def test_gzip_of_several_members(tmp_path):
    place = tmp_path / "a.vnnlib.gz"
    place.write_bytes(gzip.compress(ONE[:30]) + gzip.compress(ONE[30:]))
    assert read_property(place).text == ONE


def test_version_2_is_told_by_its_first_statement(tmp_path):
    pytest.importorskip("vnnlib")
    place = tmp_path / "two.vnnlib"
    place.write_bytes(TWO)
    (tmp_path / "one.vnnlib").write_bytes(ONE)
    assert read_property(place).cases == read_property(tmp_path / "one.vnnlib").cases


def test_unreadable_places_are_named(tmp_path):
    with pytest.raises(PropertyError, match=r"none\.vnnlib: cannot read the property file: No such file"):
        read_property(tmp_path / "none.vnnlib")
    with pytest.raises(PropertyError, match="cannot read the property file"):
        read_property(tmp_path)
    with pytest.raises(PropertyError, match="not a file name"):
        read_property(tmp_path / "a\0b")


def test_errors_name_file_and_line(tmp_path):
    place = tmp_path / "bad.vnnlib"
    place.write_bytes(ONE + b"\n\n(assert (<= Y_9 0))")
    with pytest.raises(PropertyError, match=r"bad\.vnnlib:3: 'Y_9' is not declared"):
        read_property(place)
