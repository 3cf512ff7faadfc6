#!/bin/bash
# VNN-COMP: install_tool.sh v1
# Installs sutura with the reader of VNN-LIB 2.0 into a virtual environment beside these scripts.
set -euo pipefail

[ "${1:-}" = v1 ] || { echo "install_tool.sh: the first argument must be v1" >&2; exit 1; }
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${SUTURA_PYTHON:-python3}"

"$python" -m venv "$here/venv"
"$here/venv/bin/pip" install --quiet -c "$here/../constraints.txt" "$here/..[vnnlib2]"
"$here/venv/bin/sutura" --version
