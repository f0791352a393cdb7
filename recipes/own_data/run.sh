#!/usr/bin/env bash
# GRPO on your own pictures against a tutor at an OpenAI endpoint: bash recipes/own_data/run.sh [verl overrides ...]
#   STEER_TUTOR_BASE_URL, STEER_TUTOR_MODEL   the tutor (and STEER_TUTOR_API_KEY, if it wants one)
#   DATA    parquet file of `steer data convert`  [train.parquet beside this script]
#   MODEL   student: a folder or a hub id         [the miniature student of `make demo`]
#   DEVICE  cpu or gpu                            [cpu]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
export DATA=${DATA:-$here/train.parquet} MODEL=${MODEL:-out/demo/sft/hf}
device=${DEVICE:-cpu}
config=(--config-path "$here" --config-name grpo)

if [ "$device" = cpu ]; then
    while IFS='=' read -r name value; do # the CPU runtime's environment, beneath the user's own
        [ -n "${!name+set}" ] || export "$name=$value"
    done < <("$python" -c 'from steer_verl.cpu import environment; print(*map("=".join, environment().items()), sep="\n")')
fi

"$python" -m steer_verl.preflight "${config[@]}" -- "device=$device" "$@"
exec "$python" -m steer_verl.processes.tidy "$python" -m verl.trainer.main_ppo "${config[@]}" "device=$device" "$@"
