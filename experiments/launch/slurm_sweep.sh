#!/usr/bin/env bash
# Workers of one sweep as a Slurm array: each is one process on one GPU, and needs no other.
#
#   SWEEP=disc_degeneration_rates WORKDIR=/shared/runs/rates \
#     STORAGE=postgresql://mskjax@db.cluster/sweeps sbatch experiments/launch/slurm_sweep.sh
#
# WORKDIR lies on a file system that all nodes share.  The password of the data base belongs into
# ~/.pgpass.  Without STORAGE the workers share a journal file in WORKDIR.  IMAGE=mskjax.sif runs them
# in the container of experiments/launch/Dockerfile, else in the environment of the one who submits.
#
# 120 s before the time limit, and at pre-emption, a worker saves and ends with 75; the array task
# then queues again and goes on where it stopped.  Any other code ends the task.
#SBATCH --job-name=mskjax-sweep
#SBATCH --array=0-7
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#SBATCH --output=mskjax-sweep-%A_%a.log
set -uo pipefail

PREEMPTED=75
command=(
  python -m mskjax.sweep
  "--config=${SWEEP:?is the name of a sweep}"
  "--workdir=${WORKDIR:?is a shared folder}"
)
[[ -z "${STORAGE:-}" ]] || command+=("--storage=$STORAGE")
[[ -z "${IMAGE:-}" ]] || command=(apptainer exec --nv "$IMAGE" "${command[@]}")

# The shell gets the signal (B:) and hands it on; `wait` then ends before the worker does.
"${command[@]}" &
worker=$!
trap 'kill -TERM "$worker"' TERM
wait "$worker"
while kill -0 "$worker" 2>/dev/null; do wait "$worker"; done
wait "$worker"
code=$?

if [[ "$code" -eq "$PREEMPTED" ]]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
