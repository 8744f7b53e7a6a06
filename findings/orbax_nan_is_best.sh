#!/usr/bin/env bash
# One NaN metric makes orbax's CheckpointManager delete the best checkpoint and call later, worse ones the best.
#
# Seen with orbax-checkpoint 0.12.8, jax 0.10.2, Python 3.11. With best_fn, best_mode="min" and max_to_keep=2 the steps are
# sorted by their metric. NaN compares with nothing, so it splits the list: behind it the newest step is always kept and named
# best, and the step with the lowest loss goes. A validation loss that is NaN once is enough; no warning, no error.
# So: give orbax no metric that is not finite. pav_jax ends a run at the first loss that is not, before anything is saved.
#
#   bash findings/orbax_nan_is_best.sh       needs python3.11 or later, pip and a package index
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check orbax-checkpoint==0.12.8 jax==0.10.2
cat > "$folder/seen.py" <<'PYTHON'
import importlib.metadata
import sys

import numpy as np
import orbax.checkpoint as ocp


def kept(losses, path):
  """(steps that are kept, the best of them) after a checkpoint for each loss."""
  options = ocp.CheckpointManagerOptions(max_to_keep=2, best_fn=lambda metrics: metrics["loss"], best_mode="min")
  with ocp.CheckpointManager(path, options=options) as manager:
    for step, loss in enumerate(losses):
      manager.save(step, args=ocp.args.StandardSave({"w": np.ones(2)}), metrics={"loss": loss})
      manager.wait_until_finished()
    return list(manager.all_steps()), manager.best_step()


finite = kept([0.5, 0.1, 0.9, 0.4, 0.3], sys.argv[1] + "/finite")
broken = kept([0.5, 0.1, float("nan"), 0.4, 0.3], sys.argv[1] + "/nan")
print(f"orbax-checkpoint {importlib.metadata.version('orbax-checkpoint')}, losses .5 .1 X .4 .3:")
print(f"  X = .9   kept {finite[0]}, best {finite[1]}")
print(f"  X = NaN  kept {broken[0]}, best {broken[1]}; step 1 with loss .1 is gone")
assert finite == ([1, 4], 1) and broken == ([3, 4], 4), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/seen.py" "$folder" 2> "$folder/noise" || { cat "$folder/noise" >&2; exit 1; }
