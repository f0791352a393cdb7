#!/usr/bin/env bash
# Stage III in the miniature laboratory, without a GPU: bash recipes/mini/run_grpo.sh mini.root=out/demo [verl overrides ...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
config=(--config-path "$here" --config-name grpo)

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)} # whoever computes takes every core; one that waits sleeps
while IFS='=' read -r name value; do # the CPU runtime's environment, beneath the user's own
    [ -n "${!name+set}" ] || export "$name=$value"
done < <("$python" -c 'from steer_verl.cpu import environment; print(*map("=".join, environment().items()), sep="\n")')

"$python" -m steer_verl.preflight "${config[@]}" -- "$@"
exec "$python" -m steer_verl.processes.tidy "$python" -m verl.trainer.main_ppo "${config[@]}" "$@"
