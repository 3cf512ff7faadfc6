"""`sutura check`: the independent checker, as a command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sutura.certificate import check as checker


@click.command("check", context_settings={"ignore_unknown_options": True})
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
def command(files: tuple[Path, ...], as_json: bool) -> None:
    """Check a certificate: sutura check FIXED.onnx PROP.vnnlib... FIXED.cert.json

    The same as `python -m sutura.certificate.check`, which needs numpy and nothing of sutura but that folder.
    """
    sys.exit(checker.main([*map(str, files), *(["--json"] if as_json else [])]))
