"""S-expressions, folded while they are read: no tree is kept, nothing recurses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from sutura.errors import PropertyError
from sutura.property.quote import quote

DEEPEST = 128  # nested parentheses; no real property needs ten
LONGEST = 200_000  # items of one list
MOST_COMMENTS = 1_000_000

# One match for what most of a file is made of, (declare-const X_0 Real) or (assert (<= X_0 0.5)); then single
# parentheses, atoms, comments, strings and symbols. None of these scans anything twice.
_WORDS = r"[ \t!#-'*-:<-{}~]*+"
_TOKEN = re.compile(
    rf"\((?P<words>{_WORDS})(?:\)|\((?P<inner>{_WORDS})\)[ \t]*\))"
    r"""|[()]|[^ \t\r\n\f()";|]+|;[^\r\n]*|"[^"]*"|\|[^|]*\||["|]"""
)


T = TypeVar("T")


def fold(  # noqa: C901 -- one loop over the tokens, each kind of which is dealt with once
    text: str, source: str, reduce: Callable[[list[str | T], int], T]
) -> Iterator[T]:
    """What `reduce` makes of each outermost list, in order.

    `reduce` gets the items of a list (atoms as text, inner lists as already reduced) and the line of its
    opening parenthesis; a PropertyError that it raises is raised again with `source:line` in front. Raises
    PropertyError where parentheses do not match or nest too deep, or text stands outside of them.
    """
    stack: list[tuple[int, list[str | T]]] = []
    line, seen, comments = 1, 0, 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token[0] == ";":
            comments += 1
            if comments > MOST_COMMENTS:
                raise PropertyError(f"{source}: more than {MOST_COMMENTS:,} comments; remove them")
            continue
        if token[0] != "(" and token != ")":
            if not stack or token in _ADVICE or len(stack[-1][1]) == LONGEST:
                where = f"{source}:{line + text.count(_NEWLINE, seen, match.start())}"
                raise _refusal(token, bool(stack), where)
            stack[-1][1].append(token)
            continue
        line += text.count(_NEWLINE, seen, match.start())
        seen = match.start()
        if token == "(":
            _check_depth(len(stack) + 1, source, line)
            stack.append((line, []))
            continue
        if token != ")":
            _check_depth(len(stack) + 1 + (match["inner"] is not None), source, line)
            value = _short(match, reduce, source, line)
        elif stack:
            value = _located(reduce, stack[-1][1], source, stack.pop()[0])
        else:
            raise PropertyError(f"{source}:{line}: a closing parenthesis too many; remove it")
        if stack:
            stack[-1][1].append(value)
        else:
            yield value
    if stack:
        raise PropertyError(
            f"{source}:{stack[-1][0]}: the parenthesis opened here is never closed; is the file whole?"
        )


def _check_depth(depth: int, source: str, line: int) -> None:
    if depth > DEEPEST:
        raise PropertyError(f"{source}:{line}: more than {DEEPEST} nested parentheses; flatten the formula")


def _short(match: re.Match[str], reduce: Callable[[list[str | T], int], T], source: str, line: int) -> T:
    """A list that was read in one go: words, perhaps with one list of words at their end."""
    items: list[str | T] = [*match["words"].split(None, LONGEST)]
    if match["inner"] is not None:
        inner: list[str | T] = [*match["inner"].split(None, LONGEST)]
        items.append(_located(reduce, _counted(inner, source, line), source, line))
    return _located(reduce, _counted(items, source, line), source, line)


def _located(reduce: Callable[[list[str | T], int], T], items: list[str | T], source: str, line: int) -> T:
    try:
        return reduce(items, line)
    except PropertyError as error:
        raise PropertyError(f"{source}:{line}: {error}") from None


def _counted(items: list[str | T], source: str, line: int) -> list[str | T]:
    """The items of a list, if these are not too many."""
    if len(items) > LONGEST:
        raise PropertyError(f"{source}:{line}: a list of more than {LONGEST:,} items; split the property")
    return items


def _refusal(token: str, inside: bool, where: str) -> PropertyError:
    if inside and token not in _ADVICE:
        return PropertyError(f"{where}: a list of more than {LONGEST:,} items; split the property")
    return PropertyError(f"{where}: unexpected {quote(token)}; {_ADVICE.get(token, _OUTSIDE)}")


_NEWLINE = "\n"
_OUTSIDE = "every statement stands in parentheses, as in (assert ...)"
_ADVICE = {'"': "the string opened here is never closed", "|": "the symbol opened here is never closed"}
