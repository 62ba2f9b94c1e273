#!/bin/bash
# Train on two nodes of eight GPUs, in as many jobs as it takes:
#   sbatch examples/accelerate/slurm.sh RECIPE --output-dir runs/NAME
# Two minutes before its time is up the job tells the training to save, and goes back into the queue.
#SBATCH --job-name=vissl_zoo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export ADDRESS=$address PORT=${PORT:-29500} GPUS=${GPUS:-8}

# torchrun, since accelerate's launcher passes no signal on to the training.
srun --kill-on-bad-exit=1 bash -c 'exec torchrun --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" \
    --nproc-per-node "$GPUS" --master-addr "$ADDRESS" --master-port "$PORT" train.py "$@" --resume auto' train "$@" &
training=$!

stopped=
trap 'stopped=yes; kill -TERM "$training"' TERM
wait "$training"
code=$?
if [ -n "$stopped" ]; then
    wait "$training" # the first one ended with the signal, and the training saves yet
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
