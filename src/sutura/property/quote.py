"""The user's own words in an error message: one line, printable, never long."""

from __future__ import annotations

_LONGEST = 40


def quote(text: str) -> str:
    """`text` between quotes, control characters escaped, cut in the middle where it is long."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 12]}...{text[-9:]}"
    return "'" + text.encode("unicode_escape").decode("ascii") + "'"
