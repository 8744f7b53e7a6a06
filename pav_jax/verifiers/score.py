"""Reading a verifier: one causal pass gives the value of every prefix (App. D)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.models import decoding
from pav_jax.models import network as network_lib
from pav_jax.models.network import Network
from pav_jax.training import mesh as mesh_lib


def logits_at(network: Network, params, token_bt, position_bz):
  """float32 (b, z): the scoring token's logit at given positions of whole rows, in one pass."""
  hidden_btd = network.hidden(params, token_bt)
  hidden_bzd = jnp.take_along_axis(hidden_btd, position_bz[:, :, None], axis=1)
  return network.scores(params, hidden_bzd)


@functools.partial(jax.jit, static_argnames=("network", "mesh"))
def after_prompts(network: Network, params, prompt_pt, length_p, source_b, token_bt, length_b, end_bz, *, mesh):
  """sigmoid of the scores (b, z) at the prompts' and prefixes' ends; a prompt is read once for the rows of it.

  On a mesh a part has its share of the prompts and of the rows, and counts source_b from its first prompt.
  """
  def own(params, prompt_pt, length_p, source_b, token_bt, length_b, end_bz):
    hidden_ptd, prefix = network.read(params, prompt_pt)
    prompt_pd = jnp.take_along_axis(hidden_ptd, length_p[:, None, None] - 1, axis=1)[:, 0]
    cache = decoding.begin(decoding.take(prefix, source_b), length_p[source_b], token_bt.shape[1])
    valid_bt = jnp.arange(token_bt.shape[1])[None] < length_b[:, None]
    hidden_btd, _ = network.extend(params, cache, token_bt, valid_bt)
    hidden_bzd = jnp.take_along_axis(hidden_btd, jnp.maximum(end_bz, 0)[:, :, None], axis=1)
    hidden_bzd = jnp.where((end_bz == -1)[:, :, None], prompt_pd[source_b][:, None], hidden_bzd)
    return jax.nn.sigmoid(network.scores(params, hidden_bzd))
  return mesh_lib.by_part(mesh, own, params, prompt_pt, length_p, source_b, token_bt, length_b, end_bz)


def score_responses(network: Network, params, prompt_pt, prompt_length_p, source_b, token_bt, length_b, end_bz, *,
                    rows_per_call: int, mesh=None) -> np.ndarray:
  """sigmoid of the logits at each prefix's end, float32 (b, z); NaN where end_bz is -2.

  Each prompt is read once a call, each response once after it. source_b: the row of
  prompt_pt a response belongs to, ascending; end_bz: as in values.Values.
  mesh: its parts share a call's rows.
  """
  params = network_lib.for_decoding(network, params, scoring=True)
  parts, pieces = mesh_lib.num_parts(mesh), []
  share = max(1, rows_per_call // parts)
  for start in range(0, len(source_b), share * parts):
    row_b = np.minimum(np.arange(start, start + share * parts), len(source_b) - 1)
    used_p, local_b = [], []
    for mine_b in row_b.reshape(parts, share):
      used, local = np.unique(source_b[mine_b], return_inverse=True)
      used_p.append(np.pad(used, (0, share - len(used)), mode="edge"))
      local_b.append(local)
    used_p, local_b = np.concatenate(used_p), np.concatenate(local_b).astype(np.int32)
    score_bz = after_prompts(network, params, prompt_pt[used_p], prompt_length_p[used_p], local_b, token_bt[row_b],
                              length_b[row_b], end_bz[row_b], mesh=mesh)
    pieces.append(mesh_lib.fetch(score_bz)[:len(source_b) - start])
  return np.where(end_bz == -2, np.nan, np.concatenate(pieces))
