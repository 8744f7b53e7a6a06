#!/usr/bin/env bash
# After `gm.nn.Transformer` is imported, every Flax linen module of the process hands its initialisers a third argument.
#
# Seen with gemma 3.3.0 (gemma/gm/utils/_dtype_params.py, its last line), flax 0.12.8, jax 0.10.2, Python 3.11.
# gemma puts a function of its own in the place of `flax.linen.Module.param`, when it is imported, for good. It calls
# init_fn(key, shape, dtype), dtype None where nobody asked for one, where Flax calls init_fn(key, shape). An initialiser
# with an optional third parameter of its own, as one that binds a loop's variable (`s=scale`), gets None for it: here a TypeError,
# and only in the process that imported gemma before, so in one order of tests and not in another.
# So: give initialisers (key, shape, dtype=None), or bind values in a closure. pav_jax does so since it met this.
#
#   bash findings/gemma_changes_flax.sh          needs python3.11, pip and a package index; some 2 GB, TensorFlow among them
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.9.13
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" \
  gemma==3.3.0 kauldron==1.4.2 flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 orbax-checkpoint==0.12.8 tensorflow==2.21.0 tensorflow-datasets==4.9.10
cat > "$folder/seen.py" <<'PYTHON'
import importlib.metadata

import flax.linen as nn
import jax
import jax.numpy as jnp


class Scaled(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x * self.param("kernel", lambda key, shape, s=2.0: s * jnp.ones(shape), (3,))


def made():
  return Scaled().init(jax.random.key(0), jnp.ones(3))["params"]["kernel"].tolist()


before = made()
from gemma import gm

gm.nn.Transformer  # loads the module
try:
  after = made()
except TypeError as error:
  after = f"TypeError: {error}"
print(f"gemma {importlib.metadata.version('gemma')}, flax {importlib.metadata.version('flax')}: before {before}, after {after}")
assert before == [2, 2, 2] and str(after).startswith("TypeError"), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/seen.py"
