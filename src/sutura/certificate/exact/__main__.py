"""python exact FIXED.onnx PROP.vnnlib [...] FIXED.cert.json [--sample=K] [--workers=N] [--json]

Run as a folder, copied anywhere, with nothing installed; or as python -m sutura.certificate.exact.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
if not __package__:
    sys.path.insert(0, str(FOLDER.parent))
check = import_module(f"{__package__ or FOLDER.name}.proof").check


def main(arguments: Sequence[str]) -> int:
    """The command line: 0 accepted, 1 refused, 2 files unreadable or wrong usage."""
    flags = [part[2:].partition("=") for part in arguments if part.startswith("--")]
    options = {name: value for name, _, value in flags}
    places = [Path(part) for part in arguments if not part.startswith("--")]
    if len(places) < 3 or not set(options) <= {"sample", "workers", "json"}:
        sys.stderr.write(f"{(__doc__ or '').splitlines()[0]}\n")
        return 2
    try:
        files = [inflated(place) for place in places]
        sample, workers = (int(options[key]) if key in options else None for key in ("sample", "workers"))
    except (OSError, ValueError, zlib.error) as error:
        sys.stderr.write(f"unreadable: {error}\n")
        return 2

    def tell(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done:,} of {total:,} boxes" + "\n" * (done == total))

    accepted, reason = check(files, sample=sample, workers=workers or os.cpu_count() or 1, progress=tell)
    said = f"{'accepted' if accepted else 'refused'}: {reason}"
    sys.stdout.write(json.dumps({"accepted": accepted, "reason": reason}) if "json" in options else said)
    sys.stdout.write("\n")
    return 0 if accepted else 1


def inflated(place: Path) -> bytes:
    """A file's bytes, unpacked where its name ends in .gz."""
    data = place.read_bytes()
    return zlib.decompressobj(31).decompress(data, 1 << 25) if place.suffix == ".gz" else data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
