"""write_all: every file, or none, and nothing left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from sutura import writing
from sutura.errors import OutputError
from sutura.writing import write_all


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_all_files_are_written(tmp_path):
    write_all({tmp_path / "a": b"one", tmp_path / "b": b"two"})
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == b"one"
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o644


def test_files_in_their_places_are_replaced(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    write_all({tmp_path / "a": b"new"})
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_links_are_written_through(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_all({tmp_path / "link": b"new"})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize(
    "bad", ["missing/b", "folder", "x\0y", "n" * 300], ids=["no folder", "a folder", "null", "long"]
)
def test_one_bad_place_means_no_file(tmp_path, bad):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OutputError, match=r"cannot write .*; nothing was written") as caught:
        write_all({tmp_path / "a": b"new", tmp_path / "fresh": b"x", tmp_path / bad: b"y"})
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["a", "folder"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_move_puts_everything_back(tmp_path, monkeypatch, error):
    (tmp_path / "a").write_bytes(b"old")
    real = Path.replace

    def fail_at_third(self, target):
        if Path(target).name == "c":
            raise error
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fail_at_third)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_all({tmp_path / "a": b"new", tmp_path / "b": b"new", tmp_path / "c": b"new"})
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interrupt_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(writing.os, "fsync", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_all({tmp_path / "a": b"new"})
    assert names(tmp_path) == []
