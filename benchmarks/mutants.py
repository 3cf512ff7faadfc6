"""Mutants of Python source: one small change of what the code decides or computes, at a time.

A comparison, an arithmetic, shift, bit or boolean operator exchanged; a whole number one larger; True for
False; min for max and any for all; a `not` or a minus dropped; the call of a check removed. Left alone are
annotations, decorators, texts, and `strict` of zip, which only says that lengths agree. Each mutant is run in
a forked child with limits of CPU time and memory: it is killed where the battery of tests raises anything in
it, or does not end. Survivors that survivors.toml explains are known there by their line's text.

Why not mutmut or cosmic-ray: both start pytest anew for each mutant, some seconds before the first test; a
forked child starts with everything imported and every expected answer known, so that all mutants can be run.
"""

from __future__ import annotations

import ast
import gc
import os
import resource
import signal
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU_SECONDS, MEMORY, NOTHING = 20, 6 << 30, -1

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub,
    ast.Sub: ast.Add, ast.Mult: ast.Add, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.And: ast.Or, ast.Or: ast.And, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file (by its key), line and column, what is changed, and where: the node, which of its changes."""

    file: str
    line: int
    column: int
    change: str
    node: int
    which: int


def mutants(file: str, source: str, checks: Sequence[str]) -> Iterator[Mutant]:
    """Every mutant of a source text; `checks` are the functions whose calls may be removed."""
    for number, node in enumerate(kept(ast.parse(source))):
        for which, (change, _) in enumerate(changes(node, checks)):
            line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
            yield Mutant(file, line, column, change, number, which)


def built(mutant: Mutant, source: str, checks: Sequence[str]) -> ast.Module:
    """The changed tree of a mutant; the tree as it is for one that changes nothing."""
    tree = ast.parse(source)
    if mutant.which == NOTHING:
        return tree
    node: Any = next(node for number, node in enumerate(kept(tree)) if number == mutant.node)
    [*changes(node, checks)][mutant.which][1](node)
    return ast.fix_missing_locations(tree)


def kept(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree that run: annotations are never evaluated, and texts decide nothing."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list"} or (
            isinstance(node, ast.keyword) and node.arg == "strict"
        ):
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST) and not isinstance(part, ast.JoinedStr):
                yield from kept(part)


def changes(node: ast.AST, checks: Sequence[str]) -> Iterator[tuple[str, Callable[[Any], None]]]:  # noqa: C901
    """What can be changed about a node, and how."""
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                if type(op) in SWAPS:
                    yield swapped(op), lambda n, at=at, op=op: put(n.ops, at, SWAPS[type(op)]())
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op) if type(op) in SWAPS:
            yield swapped(op), lambda n: setattr(n, "op", SWAPS[type(op)]())
        case ast.Constant(value=bool(value)):
            yield f"{value} -> {not value}", lambda n: setattr(n, "value", not value)
        case ast.Constant(value=int(value)):
            yield f"{value} -> {value + 1}", lambda n: setattr(n, "value", value + 1)
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield f"{name} -> {NAMES[name]}", lambda n: setattr(n, "id", NAMES[name])
        case ast.UnaryOp(op=ast.Not()):
            yield (
                "not dropped",
                lambda n: (setattr(n, "op", ast.UAdd()), setattr(n, "operand", truth(n.operand))),
            )
        case ast.UnaryOp(op=ast.USub()):
            yield "minus dropped", lambda n: setattr(n, "op", ast.UAdd())
        case ast.Expr(value=ast.Call(func=ast.Name(id=name))) if name in checks:
            yield f"{name} removed", lambda n: setattr(n, "value", ast.Constant(None))
        case _:
            pass


def swapped(op: ast.AST) -> str:
    """The words of an exchange."""
    return f"{type(op).__name__} -> {SWAPS[type(op)].__name__}"


def put(ops: list[Any], at: int, new: Any) -> None:
    """Sets an entry."""
    ops[at] = new


def truth(operand: Any) -> Any:
    """bool(operand)."""
    return ast.Call(ast.Name("bool", ast.Load()), [operand], [])


def survivors(
    found: Sequence[Mutant],
    install: Callable[[Mutant], None],
    battery: Sequence[Callable[[], None]],
    tell: Callable[[Mutant], None],
) -> list[Mutant]:
    """The mutants on which no test of the battery fails; tests that kill come first from then on."""
    kills: Counter[int] = Counter()
    order = list(range(len(battery)))
    left: list[Mutant] = []
    gc.freeze()
    for file in sorted({mutant.file for mutant in found}):
        killer = killed_by(Mutant(file, 0, 0, "nothing", 0, NOTHING), install, battery, order)
        assert killer is None, f"test {killer} fails on {file} as it is"
    for count, mutant in enumerate(found):
        if count % 50 == 49:
            order.sort(key=lambda at: -kills[at])
        killer = killed_by(mutant, install, battery, order)
        if killer is None:
            left.append(mutant)
            tell(mutant)
        elif killer >= 0:
            kills[killer] += 1
    return left


def killed_by(
    mutant: Mutant,
    install: Callable[[Mutant], None],
    battery: Sequence[Callable[[], None]],
    order: Sequence[int],
) -> int | None:
    """Which test kills a mutant: -1 where it does not load or end, nothing where it survives."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer = -1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            signal.alarm(8 * CPU_SECONDS)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            install(mutant)
            for at in order:
                answer = at
                battery[at]()
            answer = len(battery)
        except BaseException:  # noqa: BLE001 - pytest's own exceptions are no Exceptions
            pass
        finally:
            os.write(write, answer.to_bytes(4, "little", signed=True))
            os._exit(0)
    os.close(write)
    told = os.read(read, 4)
    os.close(read)
    os.waitpid(child, 0)
    answer = int.from_bytes(told, "little", signed=True) if len(told) == 4 else -1
    return None if answer == len(battery) else answer


def described(mutant: Mutant, source: str) -> str:
    """A mutant as survivors.toml names it: file, change, column in the stripped line, the line."""
    line = source.splitlines()[mutant.line - 1]
    column = mutant.column - (len(line) - len(line.lstrip()))
    return f"{mutant.file}: {mutant.change} @{column}: {line.strip()}"


def told(found: Sequence[Mutant], left: Sequence[Mutant], sources: Mapping[str, str]) -> dict[str, Any]:
    """Figures of a run by file, and the survivors that nothing explains."""
    text = (Path(__file__).parent / "survivors.toml").read_text()
    known = Counter(
        line for reason in tomllib.loads(text)["reason"] for line in reason["survivors"].strip().splitlines()
    )
    survivors = Counter(described(mutant, sources[mutant.file]) for mutant in left)
    files = {
        file: [sum(mutant.file == file for mutant in part) for part in (found, left)]
        for file in dict.fromkeys(mutant.file for mutant in found)
    }
    for file, (total, alive) in files.items():
        print(f"{file:12} {total:4} mutants, {total - alive:4} killed, {alive:3} survive")
    unknown = sorted((survivors - known).elements())
    print(f"{len(found)} mutants, {len(left)} survive, {len(unknown)} of them unexplained")
    sys.stdout.writelines(f"unexplained: {line}\n" for line in unknown)
    return {"files": files, "survivors": sorted(survivors.elements()), "unexplained": unknown}
