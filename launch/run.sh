#!/usr/bin/env bash
''':'
# Start training, from bash or from DeepSpeed's launcher. Under bash it starts torchrun with one rank per GPU:
#
#   bash launch/run.sh data.path=shards/ model.name=bert-base-uncased output=run/
#
# `deepspeed launch/run.sh …` runs this file as Python, for which everything up to the next three quotes is a string; the
# lines after them run the file with bash. So the part between must not contain three quotes in a row or a backslash.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" > /dev/null && pwd)
# A clone works without being installed.
export PYTHONPATH=${here%/*}${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-$(command -v python || command -v python3)} || fail "there is no python; name one with PYTHON="
"$python" -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("torch") and u.find_spec("bert_tweets")))' ||
  fail "$python has no torch or no bert_tweets; activate their environment, or name its Python with PYTHON="

# shellcheck source-path=SCRIPTDIR source=network.sh
source "$here/network.sh"

# This process is already a rank, started by deepspeed, or by srun without torchrun's variables.
if [[ -n ${LOCAL_RANK:-} ]] || { [[ -z ${PET_NNODES:-} ]] && ((${SLURM_STEP_NUM_TASKS:-1} > 1)); }; then
  if [[ ${LOCAL_SIZE:-} != 1 ]]; then
    # As torchrun does: ranks that each use all cores slow each other down.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
  fi
  exec "$python" -u -m bert_tweets.train "$@"
fi

# Number of ranks on this node. torchrun also reads its options from variables, such as PET_NPROC_PER_NODE=8.
ranks=${NPROC_PER_NODE:-${PET_NPROC_PER_NODE:-}}
if [[ -z $ranks ]]; then
  ranks=$("$python" -c 'import torch; print(torch.cuda.device_count() or 1)')
fi
if [[ ${PET_NNODES:-1} == 1 ]]; then
  export PET_STANDALONE=1
fi
# exec: signals reach torchrun, which passes them on to the ranks.
exec "$python" -m torch.distributed.run --nproc_per_node="$ranks" -m bert_tweets.train "$@"
# shellcheck disable=SC2288 # no command: the end of Python's string
'''
import os
import sys

os.environ["PYTHON"] = sys.executable
os.execvp("bash", ["bash", __file__, *sys.argv[1:]])
# bash never gets here; the quote at the end of this line makes these lines a string for parsers of bash. '
