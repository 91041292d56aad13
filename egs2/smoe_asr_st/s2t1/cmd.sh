# How the long jobs start. Sourced by run.sh.
# Locally, the training program starts one process per GPU by itself. On a cluster, put the
# submission command in front, for example:
#   train_cmd="srun --gres=gpu:4 --cpus-per-task=16"
train_cmd=""
