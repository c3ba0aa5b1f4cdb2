#!/usr/bin/env bash
# Runs everything that needs a GPU, on a machine without network and git, in two calls: 1 takes at most 390 seconds, 2
# at most 195.
#
#   [NAME=value ...] benchmarks/gpu.sh 1|2
#
#   PYTHON    python3 that has torch, transformers, accelerate and pytest                 [python3]
#   INPUTS    folder made by `python -m benchmarks.gpu_inputs pack`; put caches.tar.gz.* of
#             an earlier call 1 into it to compile less                                    [.gpu]
#   OUT       folder for results                                                           [.gpu/results]
#   WORK      folder for unpacked inputs, models and compiled kernels; call 2 needs it too  [/tmp/bert_tweets_gpu]
#   SWITCHES  settings of train for the last part of call 2: key=value,key=value, separated by spaces
#   SMALL=1   use tiny sizes, to test that everything runs; works on a CPU too
#
# Call 1: machine, checks, speed of the step, tests. Call 2: other trainers, attention backends, other settings.
# benchmarks/gpu_run.py lists the parts. Each row of results is written at once, so an interrupted call loses only the rest.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export GPU_CALL=${1:?1 or 2}
python=${PYTHON:-python3} inputs=${INPUTS:-.gpu}
export WORK=${WORK:-/tmp/bert_tweets_gpu${SMALL:+_small}} OUT=${OUT:-$PWD/.gpu/results}
mkdir -p "$WORK" "$OUT"
WORK=$(cd "$WORK" && pwd) OUT=$(cd "$OUT" && pwd)

[ -d "$WORK/shards" ] || "$python" -m tarfile -e "$inputs/inputs.tar.gz" "$WORK" || exit 1
if [ ! -d "$WORK/caches" ] && compgen -G "$inputs/caches.tar.gz.*" > /dev/null; then
  cat "$inputs"/caches.tar.gz.* > "$WORK/caches.tar.gz"
  "$python" -m tarfile -e "$WORK/caches.tar.gz" "$WORK" || echo "the caches cannot be unpacked; everything will be compiled again"
fi
mkdir -p "$WORK/caches"

COMMIT=${COMMIT:-$(cat "$inputs/commit" 2> /dev/null)}
export COMMIT PYTHONPATH="$WORK/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export TORCHINDUCTOR_CACHE_DIR="$WORK/caches/inductor" TRITON_CACHE_DIR="$WORK/caches/triton"
"$python" -m benchmarks.gpu_run "$GPU_CALL" 2>&1 | tee "$OUT/gpu-$GPU_CALL.log"
