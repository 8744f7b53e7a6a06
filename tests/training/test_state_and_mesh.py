"""Layouts: mistakes are told, nothing sharded is ever whole, and eight devices learn what one learns."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import fakes
from configs import default
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models import network
from pav_jax.problems import text
from pav_jax.training import fit
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import state as state_lib
from pav_jax.training import step as step_lib

CONFIG = dataclasses.replace(fakes.CONFIG, num_kv_heads=2, vocab_size=16)
# One head of keys, which `model` does not divide, with a norm over it; a local layer, a local one, a global one.
GEMMA3 = dataclasses.replace(CONFIG, num_layers=3, num_kv_heads=1, attention_cap=0.0, logit_cap=0.0, qk_norm=True, local_per_global=2,
                             global_rope_base=1e6, global_rope_scale=8.0)
STEPS = 3
ADAM = dict(peak_lr=0.02, warmup_steps=1, num_steps=9, b1=0.9, b2=0.95, clip_norm=1.0, weight_decay=0.01)


@pytest.fixture(scope="module")
def mesh():
  return mesh_lib.make_mesh(data=-1, fsdp=1, model=1)


def test_the_axes_must_be_the_devices(mesh):
  assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "model": 1}
  for axes in (dict(data=-1, fsdp=3, model=1), dict(data=jax.device_count() + 1, fsdp=1, model=1),
               dict(data=-1, fsdp=0, model=1), dict(data=1, fsdp=-1, model=-1), dict(data=0, fsdp=1, model=1)):
    with pytest.raises(UserError, match="is not the"):
      mesh_lib.make_mesh(**axes)


def test_a_leaf_without_a_pattern_is_an_error(mesh):
  tree = {"a": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)}, "count": jnp.zeros(())}
  with pytest.raises(UserError, match=r"no pattern matches a/bias \(2,\)"):
    mesh_lib.shardings(tree, mesh, [("kernel$", P("fsdp"))])
  layout = mesh_lib.shardings(tree, mesh, [("kernel$", P("fsdp")), ("a/", P())])
  assert layout["a"]["kernel"].spec == P("fsdp") and layout["a"]["bias"].spec == P() and layout["count"].spec == P()


def test_what_is_one_lies_whole_everywhere():
  mesh = jax.sharding.AbstractMesh((2, 2, 3), mesh_lib.AXES)
  tree = {"kernel": jax.ShapeDtypeStruct((8, 1, 5), jnp.float32)}
  assert mesh_lib.shardings(tree, mesh, [("kernel", P("fsdp", "model"))])["kernel"].spec == P("fsdp", None)


def test_a_size_that_does_not_divide_is_an_error():
  mesh = jax.sharding.AbstractMesh((2, 2, 3), mesh_lib.AXES)
  tree = {"kernel": jax.ShapeDtypeStruct((8, 4), jnp.float32)}
  with pytest.raises(UserError, match=r"kernel \(8, 4\): 4 rows do not divide over model = 3"):
    mesh_lib.shardings(tree, mesh, [("kernel", P("fsdp", "model"))])
  with pytest.raises(UserError, match="8 rows do not divide over .* = 12"):
    mesh_lib.shardings(tree, mesh, [("kernel", P(("data", "fsdp", "model")))])


def test_nothing_is_trained_in_bfloat16(mesh):
  """Products may be: a weight of 1 that does not move by 100 steps of .001 is why."""
  tx, params = state_lib.optimizer(**{**ADAM, "peak_lr": 1e-3, "num_steps": 10_000}), jnp.ones((), jnp.bfloat16)
  opt_state = tx.init(params)
  for _ in range(100):
    updates, opt_state = tx.update(jnp.ones((), jnp.bfloat16), opt_state, params)
    params = optax.apply_updates(params, updates)
  assert params == 1
  learner = lambda **types: fit.learner(default.optimizer(), mesh, init=network.from_gemma(
      dataclasses.replace(CONFIG, **types), scoring_id=fakes.SCORE, logit_chunk=4).init, patterns=architecture.SHARDING, loss_fn=None)
  with pytest.raises(UserError, match="param_dtype=bfloat16: small steps are lost"):
    learner(param_dtype="bfloat16")
  assert learner(dtype="bfloat16").like.params["embedding"].dtype == jnp.float32


def _rows(n):
  """Six tokens a row, which `model` divides, and at last five, which it does not."""
  rng, shape = np.random.default_rng(n), (8, 6 if n < STEPS - 1 else 5)
  token_bt = rng.integers(0, CONFIG.vocab_size, shape).astype(np.int32)
  return text.TextBatch(token_bt, (rng.random(shape) < 0.6).astype(np.float32))


def _train(config, **axes):
  """Losses and final state of a few steps of a tiny Gemma on a mesh."""
  mesh = mesh_lib.make_mesh(**axes)
  net = network.from_gemma(config, scoring_id=fakes.SCORE, logit_chunk=4)
  tx = state_lib.optimizer(**ADAM)
  key = jax.random.key(0)
  state = state_lib.create(net.init, tx, key, mesh, architecture.SHARDING)
  step = step_lib.jitted(text.language_loss(net), tx, microbatches=2,
                         state_shardings=jax.tree.map(lambda x: x.sharding, state))
  losses = []
  for n in range(STEPS):
    state, metrics = step(state, mesh_lib.put_rows(_rows(n), mesh), key)
    jax.block_until_ready(state)  # simulated devices deadlock when calls overlap
    losses.append(float(metrics["loss"]))
  return losses, state


def _leaves(state):
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf
          for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def write_sharded(path, name):
  """What the process of eight devices runs; it checks the layout itself, where the layout is."""
  losses, state = _train(globals()[name], data=2, fsdp=2, model=2)
  whole, sharded = [], 0
  for name, leaf in _leaves(state).items():
    parts = np.prod([leaf.sharding.mesh.shape[axis] for axis in leaf.sharding.spec if axis])
    sharded += parts > 1
    if any(shard.data.size * parts != leaf.size for shard in leaf.addressable_shards):
      whole.append(name)
  names = [name for name, leaf in _leaves(state).items() if any(leaf.sharding.spec)]
  np.savez(path, losses=losses, whole=np.array(whole, str), names=np.array(names, str),
           **{name: np.asarray(leaf) for name, leaf in _leaves(state).items()})


@pytest.mark.parametrize("name", ["CONFIG", "GEMMA3"])
def test_eight_devices_equal_one(name, tmp_path):
  child = fakes.OnEightDevices(pathlib.Path(__file__), f"write_sharded({str(tmp_path / 'eight.npz')!r}, {name!r})")
  losses, state = _train(globals()[name], data=-1, fsdp=1, model=1)
  child.join()
  eight = np.load(tmp_path / "eight.npz")
  assert not len(eight["whole"]), eight["whole"]
  for kernel in ("embedding", "attention/query", "attention/key_value", "attention/out", "ffn/gate_up", "ffn/down"):
    assert sum(name.endswith(kernel) for name in eight["names"]) == 3, kernel  # parameters and both moments
  np.testing.assert_allclose(eight["losses"], losses, atol=1e-5)
  for name, leaf in _leaves(state).items():
    np.testing.assert_allclose(eight[name], leaf, atol=1e-5, err_msg=name)
  assert losses[0] != losses[-1]
