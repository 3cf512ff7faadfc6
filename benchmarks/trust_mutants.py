"""Mutation testing of the exact checker: small changes of its code that its tests must notice.

    python benchmarks/trust_mutants.py [--quick] [--every N] [--offset K] [--only FILE ...] [--json FILE]

Mutants (benchmarks/mutants.py) of the folder certificate/exact. The battery is that of the tests: those of
tests/certificate/test_exact*.py that look inside, and every certificate, forged or not, that they and
attacks/certificate hand to the checker, with the verdict that they ask for; what the tests take from
elsewhere (ONNX Runtime, the fast checker, the reference in rational numbers) is computed once. Survivors that
survivors.toml does not explain are listed, and make the exit code 1.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
for folder in ("tests/certificate", "attacks/certificate"):
    sys.path.insert(0, str(ROOT / folder))

import test_exact  # noqa: E402
import test_exact_arithmetic  # noqa: E402
import test_exact_forgeries  # noqa: E402
import test_exact_gates  # noqa: E402
import test_exact_operators  # noqa: E402
import test_exact_readers  # noqa: E402
import test_forgeries  # noqa: E402
import test_input_boxes  # noqa: E402
from mutants import Mutant, built, described, mutants, survivors, told  # noqa: E402

from sutura.certificate import exact  # noqa: E402

FOLDER = Path(exact.__file__).parent
FILES = ("ticks", "graph", "vnnlib", "gates", "delivered", "layers", "rules", "bound", "proof", "__main__")
TESTS = (
    test_exact_arithmetic,
    test_exact_gates,
    test_exact,
    test_exact_operators,
    test_exact_readers,
    test_exact_forgeries,
    test_forgeries,
    test_input_boxes,
)
SOURCES = {name: (FOLDER / f"{name}.py").read_text() for name in FILES}
CODES = {name: compile(source, name, "exec") for name, source in SOURCES.items()}
QUICK_EVERY = 60
SEEDS = 6
CHECKS = ("want",)
ELSEWHERE = ("reference", "fast_bound", "executed", "session_of")
SLOW = (
    "test_a_copied_folder", "test_progress", "test_it_imports", "test_the_next_number_up", "test_ticks_are",
    "test_rounding_down", "test_midpoints", "test_every_", "test_flipped_bytes",
    "test_both_readers_see_the_same_file",
)  # fmt: skip


class Spy:
    """The checker as a test sees it; keeps what is handed to `check`, and whether anything else is used."""

    def __init__(self) -> None:
        self.calls: dict[bytes, tuple[Any, dict[str, Any], bool]] = {}
        self.inside = False

    def check(self, files: Sequence[bytes], **options: Any) -> tuple[bool, str]:
        """Asks the checker itself."""
        accepted, reason = exact.check(files, **options)
        if options.get("workers", 1) == 1:
            key = pickle.dumps((list(files), options.get("sample")))
            self.calls[key] = (list(files), {"sample": options.get("sample")}, accepted)
        return accepted, reason

    def __getattr__(self, name: str) -> Any:
        self.inside = True
        return getattr(exact, name)


def battery() -> list[Callable[[], None]]:
    """The tests that look inside, and the verdicts that all of them ask for."""
    remember()
    tests: list[Callable[[], None]] = [boundaries]
    handed: dict[bytes, tuple[Any, dict[str, Any], bool]] = {}
    for module in TESTS:
        for name, test in list(vars(module).items()):
            if not name.startswith("test_") or not inspect.isfunction(test) or name.startswith(SLOW):
                continue
            marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
            for values in parameters(marks):
                module.exact = spy = Spy()
                if "tmp_path" in inspect.signature(test).parameters:
                    values["tmp_path"] = Path(tempfile.mkdtemp())
                test(**values)
                handed |= spy.calls
                if spy.inside or "tmp_path" in values:
                    tests.append(lambda test=test, values=values: test(**values))
    return tests + [lambda call=call: same(*call) for call in handed.values()]


def same(files: Sequence[bytes], options: dict[str, Any], accepted: bool) -> None:
    """The verdict must be what a test asks for, in one line of words."""
    found, reason = TESTS[0].exact.check(files, **options)
    assert found == accepted
    assert type(reason) is str and "\n" not in reason


def remember() -> None:
    """What the tests take from elsewhere is kept by its arguments."""
    for module in TESTS:
        for name in ELSEWHERE:
            function = vars(module).get(name)
            if function is not None:
                setattr(module, name, remembered(function))


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, computing each answer once."""
    known: dict[bytes, Any] = {}

    def answer(*arguments: Any) -> Any:
        key = pickle.dumps(arguments)
        if key not in known:
            known[key] = function(*arguments)
        return known[key]

    return answer


def parameters(marks: list[Any]) -> list[dict[str, Any]]:
    """The arguments of each call; of seeds only the first."""
    ways: list[dict[str, Any]] = [{}]
    for mark in marks:
        names, values = mark.args
        names = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
        rows = [value if len(names) > 1 else (value,) for value in values]
        rows = rows[:SEEDS] if names == ["seed"] else rows
        ways = [way | dict(zip(names, row, strict=True)) for way in ways for row in rows]
    return ways


def boundaries() -> None:
    """Numbers where rounding turns, against the room's own float functions."""
    import math
    from fractions import Fraction

    import numpy as np

    from sutura.certificate import tree
    from sutura.certificate.float32 import round_down

    ours, tick = TESTS[0].exact.ticks, Fraction(1, 2**149)
    values = [0.0, 2.0**-149, 2.0**-126, 1.0, 1 + 2.0**-23, 16777216.0, 3.0, 0.1, 2.0**127, 1e-40, 123.456]
    values = sorted({float(np.float32(s * v)) for v in values for s in (1, -1)})
    for v in values:
        bits = int(np.float32(v).view(np.uint32))
        assert ours.ticks(bits) * tick == Fraction(v)
        up = tree.next_above(v)
        assert math.isinf(up) or ours.next_above(ours.ticks(bits)) * tick == Fraction(up)
        for near in (Fraction(v), Fraction(v) + Fraction(1, 10**9), Fraction(v) - Fraction(1, 3**99)):
            if abs(near) < 2**127:
                assert ours.round_down(near) * tick == Fraction(round_down(near))
        for w in values:
            if v < w and math.isfinite(v + w):
                ends = [ours.ticks(int(np.float32(x).view(np.uint32))) for x in (v, w)]
                assert ours.midpoint(*ends) * tick == Fraction(tree.midpoint(v, w))


def install(mutant: Mutant) -> None:
    """Puts a copy of the checker with the change in it in front of the tests."""
    package: Any = ModuleType("mutant")
    package.__path__ = []
    sys.modules["mutant"] = package
    for name in FILES:
        module: Any = ModuleType(f"mutant.{name}")
        module.__package__, module.__file__ = "mutant", str(FOLDER / f"{name}.py")
        sys.modules[f"mutant.{name}"] = module
        setattr(package, name, module)
        code: Any = CODES[name]
        if name == mutant.file:
            code = compile(built(mutant, SOURCES[name], CHECKS), name, "exec")
        exec(code, module.__dict__)
    package.check = package.proof.check
    for test in TESTS:
        test.exact = package
    test_exact.command = package.__main__


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--only", choices=FILES, nargs="+", default=FILES)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    tests = battery()
    install(Mutant("", 0, 0, "", 0, 0))
    began = time.process_time()
    for test in tests:
        test()
    print(f"battery: {len(tests)} tests, {time.process_time() - began:.1f} CPU s", flush=True)
    every = QUICK_EVERY if given.quick else given.every
    found = [mutant for name in given.only for mutant in mutants(name, SOURCES[name], CHECKS)]
    found = found[given.offset :: every]

    def tell(mutant: Mutant) -> None:
        print(f"survives: {mutant.line}: {described(mutant, SOURCES[mutant.file])}", flush=True)

    figures = told(found, survivors(found, install, tests, tell), SOURCES)
    print(f"{sum(os.times()[2:4]):.0f} CPU s")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))
    return int(bool(figures["unexplained"]))


if __name__ == "__main__":
    sys.exit(main())
