"""Writes operators.md from the tables of the program: python docs/operators_table.py"""

from __future__ import annotations

from pathlib import Path

from sutura.certificate.compile import RULES
from sutura.network.onnx_layers import LAYERS
from sutura.network.onnx_layout import LAYOUT
from sutura.network.onnx_read import OPERATORS

HEAD = """# Supported operators

Made from the program's own tables by `docs/operators_table.py`; `sutura supports --onnx-operators` prints the
list.

*computed* operators may act on activations, *layout* ones move or select numbers, *constants* means: only
where all inputs are constants, which are folded away on reading. *certified* operators are re-proved by the
checker; in a network with others every region that is repaired gets an output gate, which needs no bound.
`sutura inspect` says of any file which nodes are supported and why others are not.

Not supported, and said of every such node when a file is loaded: MatMul of two activations (attention), and
constants as long as the batch (a class token). Vision transformers are refused for both.

| operator | as | certified |
|---|---|---|
"""


def page() -> str:
    """The page as Markdown."""
    lines = [f"| `{name}` | {_kind(name)} | {'yes' if name in RULES else ''} |" for name in sorted(OPERATORS)]
    return HEAD + "\n".join(lines) + "\n"


def _kind(name: str) -> str:
    if name in LAYERS:
        return "computed"
    return "layout" if name in LAYOUT else "constants"


if __name__ == "__main__":
    Path(__file__).with_name("operators.md").write_text(page())
