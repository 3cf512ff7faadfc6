#!/bin/bash
# VNN-COMP: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT
# The results file gets sat (with the assignment, as the version of the property asks), unsat, unknown, timeout
# or error in its first line.
set -uo pipefail

[ "${1:-}" = v1 ] && [ $# -eq 6 ] || {
    echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT" >&2
    exit 1
}
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/instance.sh"

onnx="$(unpacked "$3")" || exit 1
name="$(network_name "$4")"
"$sutura" verify "$4" --network "$name=$onnx" --timeout "$6" > "$5.part"
code=$?
if [ $code -eq 0 ]; then
    sed '1s/^timed-out$/timeout/' "$5.part" > "$5"
else
    echo error > "$5"
fi
rm -f "$5.part"
[ "$onnx" = "$3" ] || rm -f "$onnx"
exit $code
