"""Mutation testing itself: it sees what tests miss, and what is explained is there to be explained."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import mutants

ROOT = Path(__file__).resolve().parents[2]
SETS = {
    "certificate/exact": ("want",),
    "runtime": ("_check_shape", "_check_sizes", "_latch"),
}


def test_every_survivor_that_is_explained_is_a_mutant_of_the_code_as_it_is():
    there = set()
    for folder, checks in SETS.items():
        for place in (ROOT / "src" / "sutura" / folder).glob("*.py"):
            source = place.read_text()
            made = mutants.mutants(place.stem, source, checks)
            there |= {mutants.described(mutant, source) for mutant in made}
    text = (ROOT / "benchmarks" / "survivors.toml").read_text()
    for reason in tomllib.loads(text)["reason"]:
        for line in reason["survivors"].strip().splitlines():
            assert line in there, (
                f"{line!r}, explained as {reason['why']!r}, is no mutant any more; run both again"
            )


SOURCE = "def least(a, b):\n    want(a is not None)\n    return a if a < b else b\n"


def test_a_mutant_is_killed_by_a_test_that_asks_and_survives_one_that_does_not():
    functions = {}

    def want(holds):
        assert holds

    def install(mutant):
        tree = mutants.built(mutant, SOURCE, ("want",))
        exec(compile(tree, "least", "exec"), {"want": want}, functions)

    def smaller():
        assert functions["least"](1, 2) == functions["least"](2, 1) == 1

    def missing():
        try:
            functions["least"](None, 1)
        except AssertionError:
            return
        raise AssertionError("None is taken")

    found = [*mutants.mutants("least", SOURCE, ("want",))]
    assert [mutant.change for mutant in found] == ["want removed", "IsNot -> Is", "Lt -> LtE"]
    for battery, left in (([smaller], [0, 2]), ([smaller, missing], [2]), ([missing], [2])):
        assert mutants.survivors(found, install, battery, lambda mutant: None) == [found[at] for at in left]
    assert mutants.described(found[2], SOURCE) == "least: Lt -> LtE @12: return a if a < b else b"


def test_a_sample_of_mutants_of_the_checker_is_killed_or_explained():
    command = [sys.executable, "benchmarks/trust_mutants.py", "--only", "delivered", "--every", "30"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
