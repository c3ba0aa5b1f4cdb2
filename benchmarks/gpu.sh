#!/usr/bin/env bash
# Everything that wants a GPU, on a machine without a network, in under nine minutes.
#
#   [NAME=value ...] benchmarks/gpu.sh
#
#   PYTHON     python3 that has torch, transformers, accelerate and pytest              [python3]
#   WHEELS     folder of wheels of what it lacks; they go into a throw-away environment
#   DATA       tweets, as prepare's input takes them; else generated ones
#   TOKENIZER  folder of a tokenizer; else one is trained on the tweets, of a small vocabulary
#   MODEL      folder of a model of that tokenizer; else BERT-base with random weights
#   OUT        folder for results                                                       [benchmarks/results]
#   PARTS      of "tests attention sweep comparison fits", those to run                 [all but fits]
#   TESTS_SECONDS, ATTENTION_SECONDS, SWEEP_SECONDS, COMPARISON_SECONDS, FITS_SECONDS   [90 50 120 220 400]
#   SMALL=1    a tiny model and a step or two of each: does it run? On a CPU too. Results go to OUT, else nowhere
#
# A part that fails or outlasts its seconds does not stop the others; the exit status is 1 then, and the last line
# names it. Rows of results are written as they are found.
set -uo pipefail
cd "$(dirname "$0")/.."
begun=$SECONDS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
small=${SMALL:-}
parts=" ${PARTS:-tests attention sweep comparison} "
out=${OUT:-${small:+$work/results}}
mkdir -p "${out:=$PWD/benchmarks/results}"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
failed=()

if [ -n "${WHEELS:-}" ]; then
  "$python" -m venv "$work/venv"
  # The packages of a python that is itself of a virtual environment are not "system" ones: name their folders.
  "$python" -c 'import site; print(*site.getsitepackages(), sep="\n")' \
    >"$("$work/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/parent.pth"
  "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
    --find-links "$WHEELS" "$WHEELS"/*.whl || failed+=(wheels)
  python=$work/venv/bin/python
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1

# part NAME SECONDS COMMAND...
part() {
  local name=$1 seconds=$2 from=$SECONDS
  shift 2
  echo "== $name (at most $seconds s): $*"
  timeout --kill-after=10 "$seconds" "$@" 2>&1 | tee -a "$out/gpu.log" || failed+=("$name")
  echo "== $name took $((SECONDS - from)) s"
}
wanted() { [[ $parts == *" $1 "* ]]; }

: >"$out/gpu.log"
kind=$("$python" -c 'import torch; print("gpu" if torch.cuda.is_available() else "cpu")') || exit 1
echo "== $kind; torch, transformers: $("$python" -c 'import torch, transformers as t; print(torch.__version__, t.__version__)')"

sizes=(768 12 12 3072) count=60000
[ -z "$small" ] || sizes=(64 2 2 128) count=3000
data=${DATA:-$work/tweets.csv}
if [ -z "${DATA:-}" ]; then
  part tweets 60 "$python" -m benchmarks.gpu_inputs tweets "$data" "$count"
fi
prepare=("input=$data" "output=$work/shards" "tokenizer=${TOKENIZER:-wordpiece}")
# Generated tweets say the same thing often.
[ -n "${DATA:-}" ] || prepare+=(deduplicate=none)
part prepare 90 "$python" -m bert_tweets.prepare "${prepare[@]}"
model=${MODEL:-$work/model}
[ -n "${MODEL:-}" ] || part model 60 "$python" -m benchmarks.gpu_inputs model "$work/shards" "$model" "${sizes[@]}"

common=("shards=$work/shards" "model=$model")
if [ -n "$small" ]; then
  common+=(seconds=0 turns=1 tokens_per_device=1024 batches=8 precision=bf16)
else
  common+=(seconds=4)
fi
throughput=("$python" -m benchmarks.throughput)

if wanted tests; then
  part tests "${TESTS_SECONDS:-90}" "$python" -m pytest -m gpu -p no:cacheprovider tests
fi
if wanted attention; then
  part attention "${ATTENTION_SECONDS:-50}" "$python" -m benchmarks.attention ${small:+rows=8 repeats=1} \
    "output=$out/attention-$kind"
fi
if wanted sweep; then
  seconds=${SWEEP_SECONDS:-120}
  part sweep "$seconds" "${throughput[@]}" "${common[@]}" "within=$seconds" compare=false fits=false \
    "output=$out/throughput-$kind-sweep"
fi
if wanted comparison; then
  seconds=${COMPARISON_SECONDS:-220}
  part comparison "$seconds" "${throughput[@]}" "${common[@]}" "within=$seconds" sweep=false fits=false \
    "output=$out/throughput-$kind"
fi
if wanted fits; then
  part fits "${FITS_SECONDS:-400}" "${throughput[@]}" "${common[@]}" sweep=false compare=false \
    "output=$out/throughput-$kind-fits"
fi

echo "== $((SECONDS - begun)) s in all; results in $out"
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
