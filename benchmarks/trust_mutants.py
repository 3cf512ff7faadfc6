"""Mutation testing of the exact checker: small changes of its code that its tests must notice.

    python benchmarks/trust_mutants.py [--quick] [--every N] [--offset K] [--json FILE]

Mutants of certificate/exact.py: a comparison, an arithmetic, shift or boolean operator exchanged, a whole
number one larger, min for max, a `not` dropped, a call of `want` removed. A mutant is killed where one of the
fast tests of tests/certificate/test_exact.py or attacks/certificate/test_forgeries.py fails on it, or it
does not end within 20 s. Survivors are listed with their line: docs/mutation_report.md explains each.

Why not mutmut or cosmic-ray: both start pytest anew for each mutant, which costs 5 s here before the first
test; this runs a mutant in 0.3 s, in one process, so that all of some thousand can be run at all.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import inspect
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
for folder in ("tests/certificate", "attacks/certificate"):
    sys.path.insert(0, str(ROOT / folder))

import test_exact  # noqa: E402
import test_forgeries  # noqa: E402

from sutura.certificate import exact  # noqa: E402

SOURCE = Path(exact.__file__).read_text()
LIMIT, QUICK_EVERY = 20, 60
SLOW = (
    "test_one_copied_file", "test_every_flipped", "test_every_truncation", "test_flipped_bytes",
    "test_progress", "test_it_imports", "test_the_next_number_up", "test_ticks_are", "test_rounding_down",
    "test_midpoints",
)  # fmt: skip
SEEDS = 6

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr, ast.And: ast.Or, ast.Or: ast.And, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip


def sites(tree: ast.AST) -> Iterator[tuple[int, str, Callable[[Any], None]]]:
    """(number of the node in the walk, what is changed, how) for every mutant."""
    for number, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.Compare):
            for at, op in enumerate(node.ops):
                if type(op) in SWAPS:
                    yield (
                        number,
                        f"{type(op).__name__}",
                        lambda n, at=at, op=op: swap(n.ops, at, SWAPS[type(op)]()),
                    )
        elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in SWAPS:
            yield number, type(node.op).__name__, lambda n, op=node.op: setattr(n, "op", SWAPS[type(op)]())
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield number, f"{node.value} + 1", lambda n: setattr(n, "value", n.value + 1)
        elif isinstance(node, ast.Name) and node.id in {"min", "max"} and isinstance(node.ctx, ast.Load):
            yield number, node.id, lambda n: setattr(n, "id", {"min": "max", "max": "min"}[n.id])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield (
                number,
                "not",
                lambda n: (setattr(n, "op", ast.UAdd()), setattr(n, "operand", boolean(n.operand))),
            )
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and called(node.value) == "want":
            yield number, "want removed", lambda n: setattr(n, "value", ast.Constant(None))


def swap(ops: list[Any], at: int, new: Any) -> None:
    """Puts a new operator in place."""
    ops[at] = new


def boolean(operand: Any) -> Any:
    """bool(operand)."""
    return ast.Call(ast.Name("bool", ast.Load()), [operand], [])


def called(call: ast.Call) -> str:
    """The name of what is called."""
    return call.func.id if isinstance(call.func, ast.Name) else ""


def mutants(every: int, offset: int) -> Iterator[tuple[str, ModuleType | None]]:
    """A description and the module of every mutant; no module where it does not even load."""
    tree = ast.parse(SOURCE)
    for count, (number, what, change) in enumerate(list(sites(tree))):
        if count % every != offset:
            continue
        made = copy.deepcopy(tree)
        node: Any = next(n for at, n in enumerate(ast.walk(made)) if at == number)
        line = getattr(node, "lineno", 0)
        change(node)
        module = ModuleType("mutant")
        sys.modules["mutant"] = module
        try:
            exec(compile(ast.fix_missing_locations(made), "mutant", "exec"), module.__dict__)
        except Exception:  # noqa: BLE001 - whatever it is, it was noticed
            yield f"{line}: {what}", None
            continue
        yield f"{line}: {what}", module


def trials() -> list[Callable[[], None]]:
    """The tests, each with its parameters; the quick ones that kill most come first."""
    found: list[Callable[[], None]] = []
    for module in (test_exact, test_forgeries):
        for name, test in vars(module).items():
            if name.startswith("test_") and inspect.isfunction(test) and not name.startswith(SLOW):
                marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
                found += [lambda test=test, values=values: test(**values) for values in parameters(marks)]
    found += [boundaries]
    return found


def parameters(marks: list[Any]) -> list[dict[str, Any]]:
    """The arguments of each call."""
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

    mutant = test_exact.exact
    values = [0.0, 2.0**-149, 2.0**-126, 1.0, 1 + 2.0**-23, 16777216.0, 3.0, 0.1, 2.0**127, 1e-40, 123.456]
    values = sorted({float(np.float32(s * v)) for v in values for s in (1, -1)})
    for v in values:
        bits = int(np.float32(v).view(np.uint32))
        assert mutant.ticks(bits) * Fraction(1, 2**149) == Fraction(v)
        up = tree.next_above(v)
        assert math.isinf(up) or mutant.next_above(mutant.ticks(bits)) * Fraction(1, 2**149) == Fraction(up)
        for near in (Fraction(v), Fraction(v) + Fraction(1, 10**9), Fraction(v) - Fraction(1, 3**99)):
            if abs(near) < 2**127:
                assert mutant.round_down(near) * Fraction(1, 2**149) == Fraction(round_down(near))
        for w in values:
            if v < w and math.isfinite(v + w):
                ends = [mutant.ticks(int(np.float32(x).view(np.uint32))) for x in (v, w)]
                assert mutant.midpoint(*ends) * Fraction(1, 2**149) == Fraction(tree.midpoint(v, w))


def killed(module: ModuleType, tests: list[Callable[[], None]]) -> bool:
    """Whether a test fails on the mutant, or does not end."""

    def late(*_: object) -> None:
        raise TimeoutError

    test_exact.exact = test_forgeries.exact = module  # type: ignore[assignment]
    signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for test in tests:
                test()
    except BaseException:  # noqa: BLE001 - pytest's own exceptions are no Exceptions
        return True
    finally:
        signal.alarm(0)
        test_exact.exact = test_forgeries.exact = exact
    return False


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    tests, began = trials(), time.process_time()
    assert not killed(exact, tests), "the tests fail on the checker itself"
    every = QUICK_EVERY if given.quick else given.every
    survivors: list[str] = []
    count = 0
    for what, module in mutants(every, given.offset):
        count += 1
        if module is not None and not killed(module, tests):
            line = SOURCE.splitlines()[int(what.partition(":")[0]) - 1].strip()
            survivors.append(f"{what}: {line}")
            print(survivors[-1], flush=True)
    said = f"{count} mutants, {count - len(survivors)} killed, {len(survivors)} survive"
    print(f"{said}; {time.process_time() - began:.0f} CPU s")
    if given.json:
        given.json.write_text(json.dumps({"mutants": count, "survivors": survivors}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
