#!/usr/bin/env bash
# TRL's trainer of process reward models cuts float step labels to whole numbers: .95 becomes 0.
#
# Seen with trl 1.13.0 (trl/experimental/prm/prm_trainer.py, the last release that has it), transformers 5.24.0, Python 3.11.
# Labels from rollouts are shares of right continuations. Written as TRL's stepwise rows they train a model there for which
# every step is wrong that is not right in all continuations; no warning, no error. Its own example has booleans.
# So: give TRL thresholded labels, and choose the threshold yourself. pav_jax writes and reads floats as they are.
#
#   bash findings/trl_prm_labels.sh          needs python3.11 or later, pip and a package index; some GB, torch among them
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check trl==1.13.0 transformers==5.24.0 torch
cat > "$folder/seen.py" <<'PYTHON'
import importlib.metadata

import tokenizers
import transformers
from tokenizers import models
from tokenizers import pre_tokenizers
from trl.experimental.prm import PRMTrainer

letters = tokenizers.Tokenizer(models.WordLevel({c: i for i, c in enumerate("?2+=46\nq")}, unk_token="?"))
letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="?")
row = {"prompt": "q", "completions": ["2+2=4", "4+2=6"], "labels": [0.95, 1.0]}
made = PRMTrainer.tokenize_row(row, tokenizer, step_separator="\n", max_length=None, max_completion_length=None,
                               train_on_last_step_only=False, is_eval=False)
labels = [label for label in made["labels"] if label != -100]
print(f"trl {importlib.metadata.version('trl')}: labels {row['labels']} become {labels}")
assert labels == [0, 1], "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/seen.py"
