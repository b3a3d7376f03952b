#!/usr/bin/env bash
# All that needs an NVIDIA GPU, in one call, with a report: the tests that are marked `cuda`, coil
# maps on CuPy against NumPy, precisions of the network, time and memory of 1, 16 and 64 frames.
#
#     tests/gpu.sh [FOLDER]            report and tables go into FOLDER (scoremri-gpu)
#     tests/gpu.sh --dry-run [FOLDER]  the same on the CPU with tiny sizes: does all of it run?
#
# Exit code 1 where a step failed or a target was missed; the others run all the same.
set -uo pipefail

device=cuda tests=(-m cuda) frames=(1 16 64) benchmark=() dry=()
if [ "${1:-}" = "--dry-run" ]; then
    shift
    # a GPU that is there is not used
    export CUDA_VISIBLE_DEVICES=
    device=cpu tests=(-m cuda --collect-only) frames=(1 2) benchmark=(--quick) dry=(--dry-run)
fi
if [ $# -gt 1 ] || [[ "${1:-}" == -* ]]; then
    echo "usage: tests/gpu.sh [--dry-run] [FOLDER]" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-scoremri-gpu}
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit 2
cd "$root" || exit 2
report=$folder/report.txt
: >"$report" || exit 2
failed=0

step() { # NAME COMMAND...: run it, keep what it says, tell how it went
    local name=$1 code
    shift
    printf '\n== %s: %s\n' "$name" "$*" | tee -a "$report"
    "$@" 2>&1 | tee -a "$report"
    code=${PIPESTATUS[0]}
    if [ "$code" -ne 0 ]; then
        failed=1
        printf '== %s FAILED (exit code %s)\n' "$name" "$code" | tee -a "$report"
    fi
}

if [ "$device" = cuda ]; then
    step "GPU" nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
fi
step "tests" python -m pytest -q "${tests[@]}"
step "coil maps and precisions" python tests/helpers/gpu_checks.py "${dry[@]}"
for count in "${frames[@]}"; do
    step "frames, $count" python -m scoremri_core benchmark --device "$device" "${benchmark[@]}" \
        --frames "$count" -o "$folder/frames-$count.json" --overwrite
done
step "targets" python tests/helpers/gpu_checks.py "${dry[@]}" --tables "$folder"/frames-*.json
printf '\nreport: %s\n' "$report"
exit "$failed"
