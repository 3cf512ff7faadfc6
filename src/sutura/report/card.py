"""A model card: Markdown with the front matter that model hubs read."""

from __future__ import annotations

import json
from typing import Any

from sutura.report.page import VERDICTS, checked
from sutura.report.summary import summary


def card(report: dict[str, Any]) -> str:
    """The README of a folder that ships."""
    tags = ["onnx", "formal-verification", "sutura", *dict.fromkeys(s["run"] for s in report["stages"])]
    lines = ["---", "library_name: onnx", "tags:", *(f"- {tag}" for tag in tags), "---", ""]
    lines += [f"# {_plain(report['name'])}", ""]
    lines += [
        f"`model.onnx`, made of `{_plain(report['original']['name'])}` by sutura {report['sutura']}.",
        "",
    ]
    lines += ["## What is known of it", ""]
    for known in report["properties"]:
        level = f" ({known['level']})" if known["level"] else ""
        lines.append(
            f"- `{_plain(known['property'])}`: **{known['verdict']}**{level}. {VERDICTS[known['verdict']][1]}"
        )
    lines += [] if report["properties"] else ["No property was named."]
    lines += ["", "## How it was made", ""]
    for at, stage in enumerate(report["stages"], start=1):
        options = ", ".join(f"{k} = {json.dumps(v)}" for k, v in stage["options"].items())
        lines.append(f"{at}. **{stage['run']}**" + (f" ({_plain(options)})" if options else ""))
        lines += [
            f"   - {_plain(what)}: {_plain(figure)}"
            for what, figure in summary(stage["run"], stage["document"])
        ]
    lines += ["", "## Check it", "", "```sh", "sha256sum -c SHA256SUMS"]
    if report["certificate"]:
        lines.append(checked(report))
    return "\n".join([*lines, "```", ""])


def _plain(text: str) -> str:
    """Foreign text without Markdown's own marks or line ends."""
    return " ".join(str(text).split()).translate(MARKS)


MARKS = str.maketrans({c: f"\\{c}" for c in "`*<>[]|"})
