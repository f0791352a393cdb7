#!/usr/bin/env bash
# Stage III: bash recipes/qwen2_5_vl_7b/run_grpo.sh [verl overrides ...], from any folder. PYTHON names another interpreter.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
config=(--config-path "$here" --config-name grpo)

"$python" -m steer_verl.preflight "${config[@]}" -- "$@"
exec "$python" -m steer_verl.processes.tidy "$python" -m verl.trainer.main_ppo "${config[@]}" "$@"
