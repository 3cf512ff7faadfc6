"""S-expressions, folded while they are read: no tree is kept, nothing recurses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from sutura.errors import PropertyError
from sutura.property.quote import quote

DEEPEST = 128  # nested parentheses; no real property needs ten
LONGEST = 200_000  # items of one list

_TOKEN = re.compile(r'[()]|[^ \t\r\n\f()";|]+|;[^\r\n]*|"[^"]*"|\|[^|]*\||["|]')


T = TypeVar("T")


def fold(text: str, source: str, reduce: Callable[[list[str | T], int], T]) -> Iterator[T]:
    """What `reduce` makes of each outermost list, in order.

    `reduce` gets the items of a list (atoms as text, inner lists as already reduced) and the line of its
    opening parenthesis; a PropertyError that it raises is raised again with `source:line` in front. Raises
    PropertyError where parentheses do not match or nest too deep, or text stands outside of them.
    """
    stack: list[tuple[int, list[str | T]]] = []
    items: list[str | T] = []
    line, seen = 1, 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == "(":
            line += text.count(_NEWLINE, seen, match.start())
            seen = match.start()
            if len(stack) == DEEPEST:
                raise PropertyError(
                    f"{source}:{line}: more than {DEEPEST} nested parentheses; flatten the formula"
                )
            items = []
            stack.append((line, items))
        elif token == ")":
            if not stack:
                line += text.count(_NEWLINE, seen, match.start())
                raise PropertyError(f"{source}:{line}: a closing parenthesis too many; remove it")
            opened, items = stack.pop()
            value = _located(reduce, items, source, opened)
            if not stack:
                yield value
                continue
            items = stack[-1][1]
            items.append(value)
        elif token[0] != ";":
            if not stack or token in _ADVICE or len(items) == LONGEST:
                raise _refusal(
                    token, bool(stack), f"{source}:{line + text.count(_NEWLINE, seen, match.start())}"
                )
            items.append(token)
    if stack:
        raise PropertyError(
            f"{source}:{stack[-1][0]}: the parenthesis opened here is never closed; is the file whole?"
        )


def _located(reduce: Callable[[list[str | T], int], T], items: list[str | T], source: str, line: int) -> T:
    try:
        return reduce(items, line)
    except PropertyError as error:
        raise PropertyError(f"{source}:{line}: {error}") from None


def _refusal(token: str, inside: bool, where: str) -> PropertyError:
    if inside and token not in _ADVICE:
        return PropertyError(f"{where}: a list of more than {LONGEST:,} items; split the property")
    return PropertyError(f"{where}: unexpected {quote(token)}; {_ADVICE.get(token, _OUTSIDE)}")


_NEWLINE = "\n"
_OUTSIDE = "every statement stands in parentheses, as in (assert ...)"
_ADVICE = {'"': "the string opened here is never closed", "|": "the symbol opened here is never closed"}
