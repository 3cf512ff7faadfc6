"""The one error of this room: it stands alone, so that the checker needs nothing else of sutura."""

from __future__ import annotations


class CertificateError(Exception):
    """A file that cannot be believed or read; the text is one line that says what is wrong and where."""


def brief(thing: object, limit: int = 60) -> str:
    """A value as it may stand in an error: its `repr`, cut to `limit` characters."""
    text = repr(thing)
    return text if len(text) <= limit else text[: limit - 3] + "..."
