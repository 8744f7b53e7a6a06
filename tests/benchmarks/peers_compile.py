"""The training step of SFT against plain ones on other networks, by the TPU compiler: bytes a chip, and bytes a chip sends.

  make peers        every system, 2B and 9B; appends to tests/benchmarks/peers_compile.jsonl, whose table docs/results/pods.md has

Everybody has the same slice and mesh, rows, parameters and Adam in float32,
products in bfloat16, the state donated, and the step of `training/step.py`;
what differs is the network and its loss:

  ours                 as `--mode=compile --config.stage=sft` compiles it
  gemma                gm.nn.Transformer; parameters cut as ours are, rows over fsdp, the whole logits cut as well
  gemma, remat         the same, each block under flax's `remat`, which the library itself does not have
  Tunix                its Gemma with its own cuts of weights and activations and its own loss
  Tunix, remat         the same with its RematConfig.DECODER

Tunix leaves its constraints on activations out where the first device is a
CPU, as it is here; they are put back in.
"""

import argparse
import functools
import json
import os
import pathlib
import re
import sys

from pav_jax import main as main_lib

os.environ |= main_lib.COMPILER

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import optax

from pav_jax.models import architecture
from pav_jax.pods import chips
from pav_jax.pods import compile as compile_lib
from pav_jax.pods import programs
from pav_jax.problems import text
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import state as state_lib
from pav_jax.training import step as step_lib

sys.path.append(str(pathlib.Path(__file__).parents[2]))
from configs.paper import base

# Widths over fsdp, heads and feed-forward over model: ours, under the names and in the order of gemma's modules.
GEMMA = (
    (r"input_embedding$", P("model", "fsdp")),
    (r"attn/q_einsum/w$", P("model", "fsdp", None)),
    (r"attn/kv_einsum/w$", P(None, "model", "fsdp", None)),
    (r"attn/attn_vec_einsum/w$", P("model", None, "fsdp")),
    (r"mlp/linear$", P("model", "fsdp")),
    (r"scale$", P()),
)


def _mixed(params):
  """Parameters as a product takes them; the gradient goes back to float32."""
  return jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)


def _step(init, patterns, loss_fn, config, mesh, rows: P):
  """A function that lowers `training/step.py` for such a network."""
  knobs, width = config.sft, config.problems.max_prompt + config.problems.max_solution
  tx = state_lib.optimizer(peak_lr=knobs.peak_lr, warmup_steps=knobs.warmup_steps, num_steps=knobs.num_steps, b1=knobs.b1,
                           b2=knobs.b2, clip_norm=knobs.clip_norm, weight_decay=knobs.weight_decay)
  state = state_lib.abstract(init, tx, mesh, patterns)
  place = lambda dtype: jax.ShapeDtypeStruct((knobs.batch_size, width), dtype, sharding=NamedSharding(mesh, rows))
  step = step_lib.jitted(loss_fn, tx, microbatches=1, state_shardings=jax.tree.map(lambda x: x.sharding, state))
  return lambda: step.lower(state, text.TextBatch(place(jnp.int32), place(jnp.float32)), jax.random.key(0))


def of_gemma(config, mesh, remat: bool):
  from pav_jax.models.formats import official
  import flax.linen as nn
  import peers
  from tests import gemma_library  # noqa: F401, mends the next line's import
  from gemma.gm.nn import _modules
  shape = architecture.shape(config.policy)
  if remat:
    _modules.Block = nn.remat(_modules.Block)
  model = peers.gemma_model(shape)
  init = lambda key: model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
  gating = P(None, "model", "fsdp") if official.transposed_gating(shape) else P(None, "fsdp", "model")

  def loss_fn(params, batch, key):
    logit_btv = model.apply({"params": _mixed(params)}, batch.token_bt).logits[:, :-1]
    logit_btv = jax.lax.with_sharding_constraint(logit_btv, NamedSharding(mesh, P("fsdp", None, "model")))
    loss_bt = optax.softmax_cross_entropy_with_integer_labels(logit_btv.astype(jnp.float32), batch.token_bt[:, 1:])
    weight_bt = batch.weight_bt[:, 1:]
    return (loss_bt * weight_bt).sum(), weight_bt.sum(), {}
  return _step(init, (*GEMMA, (r"mlp/gating_einsum$", gating)), loss_fn, config, mesh, P("fsdp"))


def of_tunix(config, mesh, remat: bool):
  from flax import nnx
  from tunix.models.gemma import model as tunix_gemma
  from tunix.sft import peft_trainer
  from tunix.sft import utils
  import peers
  mesh = Mesh(mesh.devices.reshape(mesh.shape["fsdp"], mesh.shape["model"]), ("fsdp", "tp"))
  tunix_gemma.shard = lambda x, spec: jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*spec)))
  kind = tunix_gemma.RematConfig.DECODER if remat else tunix_gemma.RematConfig.NONE
  shape = peers.tunix_shape(architecture.shape(config.policy), remat_config=kind)
  build = lambda: tunix_gemma.Gemma(shape, rngs=nnx.Rngs(params=0))
  graph, state = nnx.split(nnx.eval_shape(build))
  specs = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.get_partition_spec(state)), is_leaf=lambda x: isinstance(x, P))
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  patterns = [(f"(^|/){re.escape(name(path))}$", spec) for path, spec in specs]

  def loss_fn(params, batch, key):
    filled = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(filled, _mixed(params))
    mask_bt = batch.token_bt != 0
    loss = peft_trainer._default_loss_fn(nnx.merge(graph, filled), batch.token_bt, batch.weight_bt, utils.build_positions_from_mask(mask_bt),
                                         utils.make_causal_attn_mask(mask_bt))
    return loss, jnp.ones(()), {}
  init = lambda key: nnx.to_pure_dict(nnx.split(build())[1])
  return _step(init, patterns, loss_fn, config, mesh, P("fsdp"))


def of_ours(config, mesh):
  [program] = programs.of_stage("sft", config, mesh)
  return program.lower


SYSTEMS = {
    "ours": of_ours, "gemma": functools.partial(of_gemma, remat=False), "gemma, remat": functools.partial(of_gemma, remat=True),
    "Tunix": functools.partial(of_tunix, remat=False), "Tunix, remat": functools.partial(of_tunix, remat=True)}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--sizes", default="gemma2_2b;gemma2_9b")
  parser.add_argument("--systems", default=";".join(SYSTEMS))
  parser.add_argument("--topology", default="v5p:2x2x4")
  parser.add_argument("--fsdp", type=int, default=4)
  parser.add_argument("--model", type=int, default=4)
  parser.add_argument("--results", default="", help="a file the JSON lines are appended to")
  options = parser.parse_args()
  mesh = mesh_lib.make_mesh(data=1, fsdp=options.fsdp, model=options.model, devices=chips.devices(options.topology))
  for size in options.sizes.split(";"):
    config = base.get_config(size, peak_lr=5e-6, alpha=0.5, rl_alpha=5.0, rl_steps=1)
    for who in options.systems.split(";"):
      program = programs.Program(f"{size}, {who}", SYSTEMS[who](config, mesh), (), {}, 0.0, 0.0)
      line = {"size": size, "who": who, "topology": options.topology, "mesh": dict(mesh.shape), "jax": jax.__version__,
              "rows": config.sft.batch_size, "width": config.problems.max_prompt + config.problems.max_solution}
      line |= compile_lib.compiled(program, mesh.size, chips.chip(options.topology))
      print(json.dumps(line), flush=True)
      if options.results:
        with open(options.results, "a", encoding="utf-8") as file:
          file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
  main()
