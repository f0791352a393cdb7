#!/usr/bin/env bash
# Every ablation in the miniature laboratory, then the table and the plot: bash recipes/ablations/run.sh [--quick] [--seeds 0 1 ...]
# It goes on where it was interrupted; --help tells the options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ -d benchmarks/lab ] || { echo "no benchmarks/lab in $PWD: this recipe runs where it lies, in a clone of steer-verl" >&2; exit 1; }

exec "${PYTHON:-python3}" -m benchmarks.lab --pages ablations "$@"
