#!/bin/bash
# VNN-COMP: prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Ends with another code than 0 where the instance is to be skipped: where the network is not supported.
set -uo pipefail

[ "${1:-}" = v1 ] && [ $# -eq 4 ] || { echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2; exit 1; }
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/instance.sh"

onnx="$(unpacked "$3")" || exit 1
[ -r "$4" ] || { echo "cannot read $4" >&2; exit 1; }
"$sutura" inspect "$onnx" > /dev/null
code=$?
[ "$onnx" = "$3" ] || rm -f "$onnx"
exit $code
