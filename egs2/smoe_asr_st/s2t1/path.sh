# Where the programs are. Sourced by run.sh.
recipe_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo_dir=$(cd "${recipe_dir}/../../.." && pwd)
if [ -x "${repo_dir}/.venv/bin/python3" ]; then
    export PATH="${repo_dir}/.venv/bin:${PATH}"
fi
if [ -d "${repo_dir}/espnet_smoe" ]; then
    export PYTHONPATH="${repo_dir}${PYTHONPATH:+:${PYTHONPATH}}"
fi
export PYTHONIOENCODING=UTF-8
export PYTHONUNBUFFERED=1
export LC_ALL=C.UTF-8
export OMP_NUM_THREADS=1  # processes, not threads, share the data stages' work; training sets its own
