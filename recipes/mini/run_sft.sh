#!/usr/bin/env bash
# A supervised stage of the miniature laboratory: bash recipes/mini/run_sft.sh mini.root=out/demo [verl overrides ...]
# STAGE=pretrain learns to name pictures, STAGE=sft (the default) to hold dialogues.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}

while IFS='=' read -r name value; do # the CPU runtime's environment and the laboratory's, beneath the user's own
    [ -n "${!name+set}" ] || export "$name=$value"
done < <("$python" -c 'from steer_verl import cpu
print(*map("=".join, {**cpu.environment(), **cpu.laboratory()}.items()), sep="\n")')

exec "$python" -m steer_verl.processes.tidy \
    "$python" -m torch.distributed.run --standalone --nnodes=1 --nproc_per_node=1 \
    -m verl.trainer.sft_trainer --config-path "$here" --config-name "${STAGE:-sft}" "$@"
