"""Mutation testing of the guard: does some test fail for every small change of what it decides?

    python benchmarks/mutate_guard.py --most 60

One comparison, boolean word, constant or condition of the guard's files is changed at a time, in a copy of
the package, and the guard's own tests are run on it. Survivors are printed with their lines.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("guard.py", "condition.py", "single.py", "rows.py", "binding.py")
TESTS = ("test_condition.py", "test_rows.py", "test_guard.py")
SECONDS = 240

SWAPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, what is changed, and the changed source, one change at a time."""
    count = sum(1 for _ in ast.walk(ast.parse(source)))
    for number in range(count):
        tree = ast.parse(source)
        node = list(ast.walk(tree))[number]
        what = changed(node)
        if what:
            yield getattr(node, "lineno", 0), what, ast.unparse(ast.fix_missing_locations(tree))


def changed(node: ast.AST) -> str:
    """Change the node in place and say how; nothing where it is of another kind."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        before, node.ops[0] = node.ops[0], SWAPS[type(node.ops[0])]()
        return f"{type(before).__name__} -> {type(node.ops[0]).__name__}"
    if isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return f"to {type(node.op).__name__}"
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS and not literal_text(node):
        before, node.op = node.op, OPERATORS[type(node.op)]()
        return f"{type(before).__name__} -> {type(node.op).__name__}"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        node.op, before = ast.UAdd(), node.op
        node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
        return f"drop {type(before).__name__}"
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        node.value = not node.value
        return f"-> {node.value}"
    if isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 1
        return f"-> {node.value}"
    return ""


def literal_text(node: ast.AST) -> bool:
    """Type unions and texts are no arithmetic."""
    return any(isinstance(part, ast.Constant) and part.value is None for part in ast.walk(node))


def survives(package: Path) -> bool:
    """Whether the guard's tests pass on the package in this folder."""
    tests = [str(ROOT / "tests" / "runtime" / test) for test in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> None:
    """Print the survivors and the score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=60, help="mutants tried, drawn by the seed; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    room = ROOT / "src" / "sutura" / "runtime"
    found = [(name, *mutant) for name in FILES for mutant in mutants((room / name).read_text())]
    random.Random(given.seed).shuffle(found)
    tried = found[: given.most or len(found)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "sutura"
        shutil.copytree(ROOT / "src" / "sutura", copy)
        for name, line, what, source in tried:
            (copy / "runtime" / name).write_text(source)
            if survives(Path(folder)):
                survivors.append({"file": name, "line": line, "change": what})
                print(f"survives: {name}:{line}: {what}", flush=True)
            shutil.copy(room / name, copy / "runtime" / name)
    print(f"{len(tried)} of {len(found)} mutants tried, {len(tried) - len(survivors)} killed")
    if given.json:
        given.json.write_text(json.dumps({"tried": len(tried), "survivors": survivors}, indent=2))


if __name__ == "__main__":
    main()
