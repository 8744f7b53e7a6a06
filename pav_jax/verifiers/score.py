"""Reading a verifier: one causal pass gives the value of every prefix (App. D)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.models import decoding
from pav_jax.models.network import Network


def logits_at(network: Network, params, token_bt, position_bz):
  """float32 (b, z): the scoring token's logit at given positions of whole rows, in one pass."""
  hidden_btd = network.hidden(params, token_bt)
  hidden_bzd = jnp.take_along_axis(hidden_btd, position_bz[:, :, None], axis=1)
  return network.scores(params, hidden_bzd)


@functools.partial(jax.jit, static_argnames="network")
def _after_prompts(network: Network, params, prompt_pt, length_p, source_b, token_bt, length_b, end_bz):
  hidden_ptd, prefix = network.read(params, prompt_pt)
  prompt_pd = jnp.take_along_axis(hidden_ptd, length_p[:, None, None] - 1, axis=1)[:, 0]
  cache = decoding.begin(decoding.take(prefix, source_b), length_p[source_b], token_bt.shape[1])
  valid_bt = jnp.arange(token_bt.shape[1])[None] < length_b[:, None]
  hidden_btd, _ = network.extend(network.unstacked(params), cache, token_bt, valid_bt)
  hidden_bzd = jnp.take_along_axis(hidden_btd, jnp.maximum(end_bz, 0)[:, :, None], axis=1)
  hidden_bzd = jnp.where((end_bz == -1)[:, :, None], prompt_pd[source_b][:, None], hidden_bzd)
  return jax.nn.sigmoid(network.scores(params, hidden_bzd))


def score_responses(network: Network, params, prompt_pt, prompt_length_p, source_b, token_bt, length_b, end_bz, *,
                    rows_per_call: int) -> np.ndarray:
  """sigmoid of the logits at each prefix's end, float32 (b, z); NaN where end_bz is -2.

  Each prompt is read once, each response once after it. source_b: the row of
  prompt_pt a response belongs to, ascending; end_bz: as in values.Values.
  """
  pieces = []
  for start in range(0, len(source_b), rows_per_call):
    row_b = np.minimum(np.arange(start, start + rows_per_call), len(source_b) - 1)
    used, local_b = np.unique(source_b[row_b], return_inverse=True)
    used = np.pad(used, (0, rows_per_call - len(used)), mode="edge")
    score_bz = _after_prompts(network, params, prompt_pt[used], prompt_length_p[used], local_b.astype(np.int32),
                              token_bt[row_b], length_b[row_b], end_bz[row_b])
    pieces.append(np.asarray(score_bz)[:len(source_b) - start])
  return np.where(end_bz == -2, np.nan, np.concatenate(pieces))
