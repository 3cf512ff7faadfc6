"""Tasks: their keys name their contents, and deciding one is what verify says."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest
from campaign_files import at_most, mlp, most

from sutura.campaign.instances import Instance
from sutura.campaign.task import Limits, decide, read_task, task
from sutura.errors import CampaignError, NetworkError, PropertyError
from sutura.network.read import load
from sutura.report.document import outcome
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify

NET = mlp((2, 8, 1), 1)
TOP = most(NET, 2)
SAFE, UNSAFE = (at_most(round(TOP + d, 6), 2, "p").text for d in (0.5, -0.1))
NAMES = ("n.onnx", "p.vnnlib")


def test_a_key_depends_on_all_that_a_verdict_depends_on_and_on_nothing_else(monkeypatch):
    plain = task(NET, SAFE, NAMES, Limits(5.0))
    assert task(NET, SAFE, ("other.onnx", "q.vnnlib"), Limits(5.0)).key == plain.key
    others = [
        task(NET + b"\0", SAFE, NAMES, Limits(5.0)),
        task(NET, UNSAFE, NAMES, Limits(5.0)),
        task(NET, SAFE, ("n.nnet", "p.vnnlib"), Limits(5.0)),
        task(NET, SAFE, NAMES, Limits(6.0)),
        task(NET, SAFE, NAMES, Limits(None)),
        task(NET, SAFE, NAMES, Limits(5.0, seed=1)),
        task(NET, SAFE, NAMES, Limits(5.0, profile="reals")),
        task(NET, SAFE, NAMES, Limits(5.0, runtime="r")),
        task(NET[:-1], NET[-1:] + SAFE, NAMES, Limits(5.0)),
    ]
    monkeypatch.setattr("sutura.campaign.task.__version__", "99")
    others.append(task(NET, SAFE, NAMES, Limits(5.0)))
    assert len({plain.key, *(t.key for t in others)}) == len(others) + 1


@pytest.mark.parametrize(("text", "verdict"), [(SAFE, "proved"), (UNSAFE, "violated")])
def test_deciding_says_what_verify_says(tmp_path, text, verdict):
    (tmp_path / "n.onnx").write_bytes(NET)
    (tmp_path / "p.vnnlib").write_bytes(text)
    said = decide(read_task(Instance("n.onnx", "p.vnnlib", tmp_path), Limits()))
    from sutura.property.read import read_property

    config = VerifyConfig(workers=1)
    whole = outcome("p", verify(load(tmp_path / "n.onnx"), read_property(tmp_path / "p.vnnlib"), config))
    assert said["schema"] == "sutura/verdict"
    assert said["verdict"] == verdict
    for key in ("boxes", "proved_share", "witness", "level", "assumptions"):
        assert said.get(key) == whole.get(key)
    assert said["cpu_seconds"] > 0


def test_gzip_beside_the_name_is_the_same_job(tmp_path):
    for name, data in (("n.onnx", NET), ("p.vnnlib", SAFE)):
        (tmp_path / name).write_bytes(data)
    plain = read_task(Instance("n.onnx", "p.vnnlib", tmp_path), Limits())
    for name in ("n.onnx", "p.vnnlib"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
    assert read_task(Instance("n.onnx", "p.vnnlib", tmp_path), Limits()) == replace(
        plain, names=("n.onnx", "p.vnnlib.gz")
    )
    assert read_task(Instance("n.onnx.gz", "p.vnnlib.gz", tmp_path), Limits()).key == plain.key


@pytest.mark.parametrize(
    ("network", "text", "kind"),
    [
        (b"no network", SAFE, "NetworkError"),
        (NET, b"(assert", "PropertyError"),
        (mlp((3, 4, 1), 0), SAFE, "MismatchError"),
    ],
)
def test_files_to_blame_become_an_error_of_the_job(network, text, kind):
    said = decide(task(network, text, NAMES, Limits()))
    assert (said["verdict"], said["kind"]) == ("error", kind)
    assert "\n" not in said["reason"]


@pytest.mark.parametrize("name", ["none.onnx", "n.pt", "x" * 400 + ".onnx", "nul\0.onnx", "bad.onnx.gz"])
def test_networks_that_cannot_be_read_are_refused(tmp_path, name):
    (tmp_path / "p.vnnlib").write_bytes(SAFE)
    (tmp_path / "n.pt").write_bytes(NET)
    (tmp_path / "bad.onnx.gz").write_bytes(gzip.compress(NET)[:-9])
    with pytest.raises(NetworkError):
        read_task(Instance(name, "p.vnnlib", tmp_path), Limits())


def test_a_missing_property_is_refused(tmp_path):
    (tmp_path / "n.onnx").write_bytes(NET)
    with pytest.raises(PropertyError):
        read_task(Instance("n.onnx", "none.vnnlib", tmp_path), Limits())


def test_another_version_decides_nothing():
    with pytest.raises(CampaignError, match="install the same everywhere"):
        decide(replace(task(NET, SAFE, NAMES, Limits()), version="0.0.0"))
