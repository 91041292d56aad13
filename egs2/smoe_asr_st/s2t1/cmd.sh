# How the long jobs start. Sourced by run.sh.
# Locally, the training program starts one process per GPU by itself. On a cluster, put the
# submission command in front, for example:
#   train_cmd="srun --gres=gpu:4 --cpus-per-task=16"
train_cmd=""

# Stages that take --dask work on a dask cluster, whose workers see this directory under the same
# name and have this package with its extra "dask". Either a cluster that runs already
# (`dask scheduler` on one machine, `dask worker tcp://HOST:8786` on each, then
# --dask tcp://HOST:8786), or jobs of a batch system, --nj of them, which dask-jobqueue submits
# (--dask slurm; also pbs, sge, lsf, oar). Its settings are those of its jobqueue.yaml or, in
# environment variables, for example:
#   export DASK_JOBQUEUE__SLURM__QUEUE=cpu DASK_JOBQUEUE__SLURM__WALLTIME=08:00:00
#   export DASK_JOBQUEUE__SLURM__CORES=1 DASK_JOBQUEUE__SLURM__MEMORY=4GB
#   export DASK_JOBQUEUE__SLURM__JOB_EXTRA_DIRECTIVES="['--account=speech']"
