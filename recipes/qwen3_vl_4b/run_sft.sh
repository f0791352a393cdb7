#!/usr/bin/env bash
# Stage II: bash recipes/qwen3_vl_4b/run_sft.sh [verl overrides ...], from any folder. GPUS is the number of this machine's.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
gpus=${GPUS:-8}
config=(--config-path "$here" --config-name sft)
set -- trainer.n_gpus_per_node="$gpus" "$@"

"$python" -m steer_verl.preflight "${config[@]}" -- "$@"
exec "$python" -m steer_verl.processes.tidy \
    "$python" -m torch.distributed.run --standalone --nnodes=1 --nproc_per_node="$gpus" \
    -m verl.trainer.sft_trainer "${config[@]}" "$@"
