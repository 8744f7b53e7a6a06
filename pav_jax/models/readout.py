"""What is read off final hidden states: logits, scores, log-probabilities; all in float32."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from pav_jax.models import shares
from pav_jax.models.attention import softcap
from pav_jax.models.gemma import GemmaConfig
from pav_jax.training import mesh as mesh_lib


def logits(config: GemmaConfig, params, hidden_btd) -> jax.Array:
  """float32 logits over the vocabulary, soft-capped; any leading axes."""
  return _logits(config, params["embedding"], hidden_btd)


def _logits(config: GemmaConfig, embedding_vd, hidden_btd) -> jax.Array:
  product = jnp.einsum("...d,vd->...v", hidden_btd, embedding_vd.astype(config.dtype), preferred_element_type=jnp.float32)
  return softcap(product, config.logit_cap)


def scores(config: GemmaConfig, params, hidden_btd, scoring_id: int) -> jax.Array:
  """float32 logit of the scoring token at every position: one row of the embedding (App. D); less the shift."""
  row_d = params["embedding"][scoring_id].astype(jnp.float32)
  capped = softcap(jnp.einsum("...d,d->...", hidden_btd.astype(jnp.float32), row_d), config.logit_cap)
  return capped - config.score_shift


def target_log_probs(config: GemmaConfig, params, hidden_btd, target_bt, chunk: int) -> jax.Array:
  """log p(target) in float32, (b, t), without ever holding (b, t, vocabulary).

  The time axis is cut into pieces of `chunk` tokens; each piece's logits are
  computed, reduced, and recomputed in the backward pass. t is padded up to a
  multiple of chunk inside. On a mesh (training/mesh.py, `on`) each part reads
  its own rows, and each chip of it its own share of the vocabulary; the
  embedding is gathered over fsdp once, and the parts' gradients of it are
  added once, not for every piece, each where it lies.
  """
  embedding_vd = params["embedding"]
  if jax.sharding.get_abstract_mesh().empty:
    return _target_log_probs(config, embedding_vd, hidden_btd, target_bt, chunk)
  rows = mesh_lib.ROWS
  # Here, once: the pieces of time would gather it where tokens lie over model, each all of it.
  hidden_btd = jax.lax.with_sharding_constraint(hidden_btd, PartitionSpec(*rows, None, None))
  def own(embedding_vd, hidden_btd, target_bt):
    gathered_vd = shares.gathered(embedding_vd.astype(config.dtype), 1)
    # As it was stored, so that the pieces' gradients are added in that type.
    return _target_log_probs(config, gathered_vd.astype(embedding_vd.dtype), hidden_btd, target_bt, chunk, over="model")
  return jax.shard_map(own, in_specs=(shares.EMBEDDING_CUT, rows, rows), out_specs=rows)(embedding_vd, hidden_btd, target_bt)


def _target_log_probs(config: GemmaConfig, embedding_vd, hidden_btd, target_bt, chunk: int, over: str | None = None) -> jax.Array:
  """over: the axis of the mesh over which the vocabulary is cut, embedding_vd being one share."""
  b, t = target_bt.shape
  pad = -t % chunk
  hidden_btd = jnp.pad(hidden_btd, ((0, 0), (0, pad), (0, 0)))
  target_bt = jnp.pad(target_bt, ((0, 0), (0, pad)))

  @jax.checkpoint
  def piece(_, x):
    hidden_bcd, target_bc = x
    logit_bcv = _logits(config, embedding_vd, hidden_bcd)
    if over is None:
      return None, _at(logit_bcv, target_bc) - jax.nn.logsumexp(logit_bcv, axis=-1)
    return None, _of_shares(logit_bcv, target_bc, over)

  split = lambda x: jnp.moveaxis(x.reshape(b, (t + pad) // chunk, chunk, *x.shape[2:]), 1, 0)
  _, log_prob_xbc = jax.lax.scan(piece, None, (split(hidden_btd), split(target_bt)))
  return jnp.moveaxis(log_prob_xbc, 0, 1).reshape(b, t + pad)[:, :t]


def _of_shares(logit_bcv, target_bc, over: str):
  """log p(target) (b, c) from a chip's share of the vocabulary's logits, the shares lying over an axis of the mesh in order."""
  at_bc = target_bc - jax.lax.axis_index(over) * logit_bcv.shape[-1]
  here_bc = (at_bc >= 0) & (at_bc < logit_bcv.shape[-1])
  picked_bc = jnp.where(here_bc, _at(logit_bcv, jnp.where(here_bc, at_bc, 0)), 0)
  most_bc = jax.lax.pmax(jax.lax.stop_gradient(logit_bcv).max(axis=-1), over)
  total_bc = jnp.exp(logit_bcv - most_bc[..., None]).sum(axis=-1)
  picked_bc, total_bc = jax.lax.psum((picked_bc, total_bc), over)
  return picked_bc - most_bc - jnp.log(total_bc)


def _at(logit_bcv, target_bc):
  return jnp.take_along_axis(logit_bcv, target_bc[..., None], axis=-1)[..., 0]
