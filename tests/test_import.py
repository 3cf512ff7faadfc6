"""`import sutura` is cheap, and every public name is where it is said to be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sutura

FRESH = """
import json, resource, sys
before = resource.getrusage(resource.RUSAGE_SELF)
import sutura
after = resource.getrusage(resource.RUSAGE_SELF)
spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps([spent, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def test_import_is_cheap_and_lazy():
    said = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    spent, modules = json.loads(said.stdout)
    assert spent < 0.3
    assert not {"torch", "onnx", "onnxruntime", "numpy", "scipy", "click", "rich"} & set(modules)


@pytest.mark.parametrize("name", sutura.__all__)
def test_every_public_name_resolves(name):
    value = getattr(sutura, name)
    assert name == "__version__" or value.__name__ == name


def test_the_names_for_type_checkers_are_the_lazy_ones():
    lines = Path(sutura.__file__).read_text(encoding="utf-8").splitlines()
    typed = {line.split(" as ")[1].strip() for line in lines if line.startswith("    from sutura.")}
    assert typed == set(sutura.PLACES)
    assert dir(sutura) == sorted(sutura.__all__)


def test_an_unknown_name_is_told_with_those_there_are():
    with pytest.raises(AttributeError, match=r"sutura has no 'repiar'; it has .*repair.*verify"):
        _ = sutura.repiar


def test_every_command_and_every_public_name_can_be_imported():
    from importlib import import_module

    import sutura
    from sutura.cli.app import COMMANDS, ELSEWHERE

    for name in COMMANDS:
        assert import_module(f"sutura.cli.{ELSEWHERE.get(name, name)}").command
    pytest.importorskip("torch")
    for name in sutura.__all__:
        assert getattr(sutura, name) is not None
