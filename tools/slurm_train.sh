#!/usr/bin/env bash
# Train on a Slurm cluster.
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS come from the environment.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
partition=$1 job_name=$2 config=$3
shift 3
gpus=${GPUS:-8} gpus_per_node=${GPUS_PER_NODE:-8}
# SRUN_ARGS is a list of words.
# shellcheck disable=SC2086
exec srun --partition "$partition" --job-name "$job_name" --gres "gpu:$gpus_per_node" \
    --ntasks "$gpus" --ntasks-per-node "$gpus_per_node" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit 1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"
