"""`sutura check`: the independent checker, as a command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sutura.certificate import check as checker
from sutura.cli import options


@click.command("check", context_settings={"ignore_unknown_options": True})
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@options.workers
@options.as_json
@click.option("--exact", is_flag=True, help="Bound every box again in whole numbers; minutes.")
@click.option("--exact-sample", type=click.IntRange(min=0), metavar="K", help="The same for K boxes only.")
def command(
    files: tuple[Path, ...], workers: int | None, as_json: bool, exact: bool, exact_sample: int | None
) -> None:
    """Check a certificate: sutura check FIXED.onnx PROP.vnnlib... FIXED.cert.json

    The same as `python -m sutura.certificate.check`, which needs numpy and nothing of sutura but that folder.
    --exact also asks the folder certificate/exact, which needs Python alone; --exact-sample asks it for a
    sample that the certificate's SHA-256 draws.
    """
    given = {"--json": as_json, "--exact": exact}
    values = {"--workers": workers, "--exact-sample": exact_sample}
    flags = [name for name, wanted in given.items() if wanted]
    flags += [f"{name}={value}" for name, value in values.items() if value is not None]
    sys.exit(checker.main([*map(str, files), *flags]))
