#!/usr/bin/env bash
# Stage III in the miniature laboratory, without a GPU: bash recipes/mini/run_grpo.sh mini.root=out/demo [verl overrides ...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
config=(--config-path "$here" --config-name grpo)

while IFS='=' read -r name value; do # the CPU runtime's environment and the laboratory's, beneath the user's own
    [ -n "${!name+set}" ] || export "$name=$value"
done < <("$python" -c 'from steer_verl import cpu
print(*map("=".join, {**cpu.environment(), **cpu.laboratory()}.items()), sep="\n")')

"$python" -m steer_verl.preflight "${config[@]}" -- "$@"
exec "$python" -m steer_verl.processes.tidy "$python" -m verl.trainer.main_ppo "${config[@]}" "$@"
