#!/usr/bin/env bash
# Runs the whole pipeline on real tweets: prepare all of them, train 100 steps of 256 tweets on two ranks, evaluate,
# embed, report.
#
#   BERT_TWEETS_REAL_DATA=DATA benchmarks/real_pipeline.sh [OUTPUT]
#
# DATA contains everyday_en.csv.gz (date, text); ../models/minilm-l6 next to it is an encoder without a masked-LM head.
# Times are wall-clock seconds including the start-up of Python and torch.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${BERT_TWEETS_REAL_DATA:?name the folder of real tweets}
model=$data/../models/minilm-l6
out=${1:-$(mktemp -d)/real}
export PATH="$PWD/.venv/bin:$PATH"

timed() {
  local start=$EPOCHREALTIME
  "$@"
  echo "== $(python -c "print(f'{$EPOCHREALTIME - $start:.1f}')") s: $*"
}

timed python -m bert_tweets.prepare "input=$data/everyday_en.csv.gz" "output=$out/shards" "tokenizer=$model"
timed torchrun --standalone --nproc_per_node=2 -m bert_tweets.train \
  "data.path=$out/shards" "model.name=$model" "output=$out/run" max_steps=100 batch_size=256
timed python -m bert_tweets.evaluate "model=$out/run/model" "base=$model" "data.path=$out/shards" "output=$out/eval"
timed python -m bert_tweets.embed "model=$out/run/model" "base=$model" "data.path=$out/shards" "output=$out/words" \
  "words=[mask,virus,apple,love,no,on,sick,coffee,#fail,@user]" max_occurrences=500
timed python -m bert_tweets.report "run=$out/run" "evaluation=$out/eval" "words=$out/words" "output=$out/report.html"
