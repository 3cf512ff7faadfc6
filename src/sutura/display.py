"""Results that notebooks show as a table."""

from __future__ import annotations


class Displayed:
    """Abstract: a result with an HTML form. `sutura.html` says what that looks like, and is loaded when a
    notebook asks; a room that computes results imports nothing of the report."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """What IPython and Jupyter call."""
        import sutura

        return sutura.html(self)
