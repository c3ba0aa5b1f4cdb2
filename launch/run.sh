#!/usr/bin/env bash
''':'
# Trains, whoever starts this file. Under bash it becomes a torchrun with a rank a GPU:
#
#   bash launch/run.sh data.path=shards/ model.name=bert-base-uncased output=run/
#
# `deepspeed launch/run.sh …` runs it as Python, to which all down to the next three quotes is a string; the lines after
# that hand the file to bash. So neither three quotes in a row nor a backslash may stand in between.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" > /dev/null && pwd)
# A clone that nobody has installed works too.
export PYTHONPATH=${here%/*}${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-$(command -v python || command -v python3)} || fail "there is no python; name one with PYTHON="
"$python" -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("torch") and u.find_spec("bert_tweets")))' ||
  fail "$python has no torch or no bert_tweets; activate their environment, or name its Python with PYTHON="

# shellcheck source-path=SCRIPTDIR source=network.sh
source "$here/network.sh"

# This process is a rank already: deepspeed made it one, or srun did, and nobody has set up torchrun's nodes.
if [[ -n ${LOCAL_RANK:-} ]] || { [[ -z ${PET_NNODES:-} ]] && ((${SLURM_STEP_NUM_TASKS:-1} > 1)); }; then
  if [[ ${LOCAL_SIZE:-} != 1 ]]; then
    # As torchrun does: ranks that each take every core stand in each other's way.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
  fi
  exec "$python" -u -m bert_tweets.train "$@"
fi

# Ranks of this node; torchrun knows its options as variables too, PET_NPROC_PER_NODE=8 and the like.
ranks=${NPROC_PER_NODE:-${PET_NPROC_PER_NODE:-}}
if [[ -z $ranks ]]; then
  ranks=$("$python" -c 'import torch; print(torch.cuda.device_count() or 1)')
fi
if [[ ${PET_NNODES:-1} == 1 ]]; then
  export PET_STANDALONE=1
fi
# exec: signals reach torchrun, which hands them on to the ranks.
exec "$python" -m torch.distributed.run --nproc_per_node="$ranks" -m bert_tweets.train "$@"
# shellcheck disable=SC2288 # no command: the end of Python's string
'''
import os
import sys

os.environ["PYTHON"] = sys.executable
os.execvp("bash", ["bash", __file__, *sys.argv[1:]])
# The quote that ends this line is for parsers of bash, which is never led here: to them these lines are a string. '
