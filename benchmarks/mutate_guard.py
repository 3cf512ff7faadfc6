"""Mutation testing of the guard: does some test fail for every small change of what it decides?

    python benchmarks/mutate_guard.py [--quick] [--every N] [--offset K] [--only FILE ...] [--json FILE]

Mutants (benchmarks/mutants.py) of the guard's files; the battery is that of tests/runtime, test by test as
pytest runs it, in a child forked once all of it has passed on the guard as it is. Survivors that
survivors.toml does not explain are listed, and make the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from mutants import Mutant, built, described, mutants, survivors, told

ROOT = Path(__file__).resolve().parents[1]
FILES = ("guard", "condition", "single", "rows", "binding", "tally", "alarm")
TESTS = ("test_condition.py", "test_rows.py", "test_guard.py")
CHECKS = ("_check_shape", "_check_sizes", "_latch")
QUICK_EVERY = 40

SOURCES = {name: (ROOT / "src" / "sutura" / "runtime" / f"{name}.py").read_text() for name in FILES}


@final
class Battery:
    """A plugin that takes over once pytest has collected the tests."""

    def __init__(self, found: Sequence[Mutant]) -> None:
        self.found = found
        self.left: list[Mutant] = []
        self.failed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts what fails, and says why where anyone listens."""
        self.failed += report.failed
        if report.failed:
            sys.stderr.write(report.longreprtext)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """All tests once, so that what they share is made; then each mutant."""
        tests = [partial(self.passes, item) for item in session.items]
        took: list[float] = []
        for test in tests:
            began = time.process_time()
            test()
            took.append(time.process_time() - began)
        tests = [tests[at] for at in sorted(range(len(tests)), key=took.__getitem__)]
        self.left = survivors(self.found, install, tests, tell)
        return True

    def passes(self, item: pytest.Item) -> None:
        """One test; AssertionError where it fails. What its folder shares stays for the next one."""
        module = item.getparent(pytest.Module)
        assert module is not None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=module.parent)
        assert not self.failed


def tell(mutant: Mutant) -> None:
    """A survivor, as soon as it is known."""
    sys.stderr.write(f"survives: {mutant.line}: {described(mutant, SOURCES[mutant.file])}\n")


def install(mutant: Mutant) -> None:
    """Changes the module in place, and what others took from it."""
    module = import_module(f"sutura.runtime.{mutant.file}")
    before = dict(vars(module))
    exec(compile(built(mutant, SOURCES[mutant.file], CHECKS), mutant.file, "exec"), vars(module))
    new = {id(value): vars(module)[name] for name, value in before.items() if vars(module)[name] is not value}
    for other in list(sys.modules.values()):
        name = getattr(other, "__name__", "")
        if other is module or not name.startswith(("sutura", "test_", "conftest")):
            continue
        for key, value in list(vars(other).items()):
            if id(value) in new:
                setattr(other, key, new[id(value)])


def main() -> int:
    """Print the survivors and the score."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--only", choices=FILES, nargs="+", default=FILES)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    every = QUICK_EVERY if given.quick else given.every
    found = [mutant for name in given.only for mutant in mutants(name, SOURCES[name], CHECKS)]
    found = found[given.offset :: every]
    battery = Battery(found)
    tests = [str(ROOT / "tests" / "runtime" / name) for name in TESTS]
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--capture=no", *tests], plugins=[battery])
    figures = told(found, battery.left, SOURCES)
    print(f"{sum(os.times()[2:4]):.0f} CPU s")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))
    return int(code) or int(bool(figures["unexplained"]))


if __name__ == "__main__":
    sys.exit(main())
