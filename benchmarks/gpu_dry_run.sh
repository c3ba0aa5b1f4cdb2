#!/usr/bin/env bash
# Runs both calls of benchmarks/gpu.sh with tiny sizes on this machine's CPU, without git and without the packages that a
# bare GPU machine lacks (tests/without).
#
#   [PYTHON=python3] [INPUTS=.gpu] [OUT=FOLDER] benchmarks/gpu_dry_run.sh
#
# PYTHON should have the versions of the GPU machine.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
PYTHON=$(command -v "${PYTHON:-python3}")
mkdir "$folder/bin"
tr : '\n' <<< "$PATH" | while read -r directory; do
  [ ! -d "$directory" ] || ln -s "$directory"/* "$folder/bin" 2> /dev/null || true
done
rm -f "$folder"/bin/git*
export PYTHON PATH="$folder/bin" PYTHONPATH="$PWD/tests/without${PYTHONPATH:+:$PYTHONPATH}" WORK="$folder/work" SMALL=1 CUDA_VISIBLE_DEVICES=
results=${OUT:-$folder/results} status=0
for call in 1 2; do
  OUT=$results benchmarks/gpu.sh "$call" || status=1
done
exit "$status"
