#!/usr/bin/env bash
# Run the GPU measurements in pieces: gpu_all.sh [--dry-run] PIECE…
#
# Every piece takes less than nine minutes, and can be repeated: it skips what it finished before.
# Results are added to files in the folder OUT. Without arguments this prints the pieces. Exit code:
# 0, or 1 if a piece failed, or 2 for a user error.
set -euo pipefail
cd "$(dirname "$0")/.."

pieces=(check time plugin tiles rtx-install rtx-measure compile repeat)

usage() {
    cat <<'END'
usage: benchmarks/gpu_all.sh [--dry-run] PIECE…

The pieces in order of value; "all" runs them one after the other:
  check        compare every kernel with float64, ten repetitions, in all dtypes
  time         time all shapes, the most valuable first
  plugin       run the plugins' kernels without TensorRT (needs build/plugin and build/cases)
  tiles        time the candidate tiles per shape
  rtx-install  install TensorRT-RTX from PIECES into TARGET
  rtx-measure  build, check and time engines with TensorRT-RTX in TARGET
  compile      compare with torch.compile (max-autotune) on two shapes
  repeat       the other ninety repetitions

Environment variables:
  OUT       folder for results (default: build/gpu)
  PREVIOUS  gpu.jsonl of an earlier piece, if OUT is empty, as on a new machine
  PIECES    folder that `rtx_offline.py pack` wrote (default: build/rtx/pieces)
  TARGET    folder to install TensorRT-RTX into (default: build/rtx/installed)
  PYTHON    Python with PyTorch and Triton (default: python3)

--dry-run runs tiny shapes on a CPU, and prints the commands of plugin, rtx-install and rtx-measure.
END
}

dry_run=()
if [ "${1:-}" = --dry-run ]; then
    dry_run=(--dry-run)
    shift
fi
if [ $# -eq 0 ]; then
    usage
    exit 0
fi
python=${PYTHON:-python3}
default_out=build/gpu${dry_run:+-dry-run}
out=${OUT:-$default_out}
source=${PIECES:-build/rtx/pieces}
target=${TARGET:-build/rtx/installed}

[ "$1" != all ] || set -- "${pieces[@]}"
for piece; do
    if [[ " ${pieces[*]} " != *" $piece "* ]]; then
        echo "error: A piece is one of ${pieces[*]}, or all; got '$piece'." >&2
        exit 2
    fi
done
if [ -n "${PREVIOUS:-}" ] && [ ! -r "$PREVIOUS" ]; then
    echo "error: PREVIOUS must be a gpu.jsonl of an earlier run; got '$PREVIOUS'." >&2
    exit 2
fi
mkdir -p "$out"
if [ -n "${PREVIOUS:-}" ] && [ ! -e "$out/gpu.jsonl" ]; then
    cp "$PREVIOUS" "$out/gpu.jsonl"
fi

limited() {
    # SIGTERM lets benchmarks.gpu print its tables.
    timeout --kill-after=8 530 "$@"
}

kernels() {
    limited "$python" -m benchmarks.gpu --resume --budget 480 --out "$out" --only "$1" "${dry_run[@]}"
}

elsewhere() {
    if [ ${#dry_run[@]} -gt 0 ]; then
        echo "not run in a dry run: $*"
    else
        limited "$@"
    fi
}

status=0
for piece; do
    echo "== $piece"
    case $piece in
        check) kernels correctness || status=1 ;;
        time) kernels timing || status=1 ;;
        tiles | compile | repeat) kernels "$piece" || status=1 ;;
        plugin) elsewhere make gpu-plugin-run OUT="$out" || status=1 ;;
        rtx-install)
            elsewhere "$python" benchmarks/rtx_offline.py install "$source" "$target" || status=1
            ;;
        rtx-measure)
            elsewhere "$python" benchmarks/rtx_offline.py measure "$target" --out "$out" \
                --budget 480 || status=1
            ;;
    esac
done
echo "results are in $out"
exit $status
