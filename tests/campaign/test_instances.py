"""Lists of instances: read as VNN-COMP writes them, refused with the line that is wrong."""

from __future__ import annotations

import pytest

from sutura.campaign.instances import Instance, read_instances
from sutura.errors import CampaignError


def listed(folder, text):
    place = folder / "list.csv"
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_instances(place)


def test_lines_are_network_property_seconds(tmp_path):
    found = listed(
        tmp_path, "onnx/a.onnx, vnnlib/p.vnnlib ,116\r\n\nb.nnet,q.vnnlib.gz,0.5\nc.onnx,r.vnnlib\n"
    )
    assert found == (
        Instance("onnx/a.onnx", "vnnlib/p.vnnlib", tmp_path, 116.0),
        Instance("b.nnet", "q.vnnlib.gz", tmp_path, 0.5),
        Instance("c.onnx", "r.vnnlib", tmp_path, None),
    )


def test_a_heading_and_more_columns_are_passed_over(tmp_path):
    text = "\ufeffonnx,vnnlib,timeout_s,majority\na.onnx.gz,p.vnnlib,30,holds\n"
    assert listed(tmp_path, text) == (Instance("a.onnx.gz", "p.vnnlib", tmp_path, 30.0),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists nothing"),
        ("onnx,vnnlib,timeout\n", "lists nothing"),
        ("a.onnx\n", "list.csv:1: 'a.onnx' is not NETWORK,PROPERTY,SECONDS"),
        ("a.onnx,p.vnnlib,5\nb.onnx,,5\n", "list.csv:2"),
        ("a.onnx,p.vnnlib,soon\n", "'soon' is no number of seconds above 0"),
        ("a.onnx,p.vnnlib,0\n", "'0' is no number"),
        ("a.onnx,p.vnnlib,nan\n", "'nan' is no number"),
        ("a.onnx,p.vnnlib,inf\n", "'inf' is no number"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        ('a.onnx,"p.vnnlib', "no CSV file"),
    ],
)
def test_bad_lists_are_refused_in_one_line(tmp_path, text, words):
    with pytest.raises(CampaignError) as told:
        listed(tmp_path, text)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_a_folder_is_read_by_its_list_or_as_all_pairs(tmp_path):
    for name in ("nets/a.onnx", "nets/b.nnet", "p.vnnlib", "deep/q.vnnlib.gz", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pairs = {(i.network, i.property) for i in read_instances(tmp_path)}
    assert pairs == {(n, p) for n in ("nets/a.onnx", "nets/b.nnet") for p in ("p.vnnlib", "deep/q.vnnlib.gz")}
    (tmp_path / "instances.csv").write_text("nets/a.onnx,p.vnnlib,7\n")
    assert read_instances(tmp_path) == (Instance("nets/a.onnx", "p.vnnlib", tmp_path, 7.0),)


def test_a_folder_without_both_kinds_and_a_missing_list_are_refused(tmp_path):
    (tmp_path / "a.onnx").touch()
    with pytest.raises(CampaignError, match=r"1 networks .* and 0 properties"):
        read_instances(tmp_path)
    with pytest.raises(CampaignError, match="cannot read"):
        read_instances(tmp_path / "none.csv")
