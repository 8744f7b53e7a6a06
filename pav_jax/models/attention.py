"""Softmax attention of Gemma's layers: of whole rows to themselves, and of new tokens to a cache; logits in float32.

Queries are put in the order of the products first: a CPU multiplies other
orders one by one. g is a group of key/value heads' number, H a query head of
the group.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pav_jax.models import decoding

_MASKED = -2.3819763e38  # what Gemma uses: finite, so that a row without keys gives no NaN


class _Part(NamedTuple):
  """Attention to a part of the slots: the greatest logit, the sum of exp(logit - greatest), and the values weighted by these."""

  most: jax.Array
  total: jax.Array
  mixed: jax.Array


def softcap(x, cap: float):
  """cap * tanh(x / cap): the identity near 0, bounded by +-cap; the identity everywhere for a cap of 0."""
  return cap * jnp.tanh(x / cap) if cap else x


def whole(q_bthe, k_btge, v_btge, position_bt, is_local, *, window: int, cap: float):
  """Of rows to themselves: (mixed values (b, t, h, e), (keys (b, g, e, l), values (b, g, l, e))).

  q_bthe: scaled. is_local: bool, perhaps traced: whether the window counts, in tokens, the token itself among them.
  """
  k_bgle, v_bgle = jnp.swapaxes(k_btge, 1, 2), jnp.swapaxes(v_btge, 1, 2)
  q_btgHe = q_bthe.reshape(*q_bthe.shape[:2], k_btge.shape[2], -1, q_bthe.shape[3])
  q_bgHte = jnp.transpose(q_btgHe, (0, 2, 3, 1, 4))
  logit_bgHtl = jnp.einsum("bgHte,bgle->bgHtl", q_bgHte, k_bgle, preferred_element_type=jnp.float32)
  distance_btl = position_bt[:, :, None] - position_bt[:, None, :]
  seen_btl = (distance_btl >= 0) & (~is_local | (distance_btl < window))
  logit_bgHtl = jnp.where(seen_btl[:, None, None], softcap(logit_bgHtl, cap), _MASKED)
  weight_bgHtl = jax.nn.softmax(logit_bgHtl, axis=-1).astype(q_bthe.dtype)
  mixed_bgHte = jnp.einsum("bgHtl,bgle->bgHte", weight_bgHtl, v_bgle)
  return jnp.transpose(mixed_bgHte, (0, 3, 1, 2, 4)).reshape(*q_bthe.shape), (jnp.swapaxes(k_bgle, 2, 3), v_bgle)


def past(past: decoding.Past, q_bthe, k_btge, v_btge, is_local: bool, *, cap: float):
  """Of new tokens to a layer's cache and themselves: (mixed values (b, t, h, e), the suffixes' blocks with the new tokens in them).

  What a layer of this kind sees, the window reckoned in, stands in past.view.
  """
  rows, times, _, width = q_bthe.shape
  reach, prefix_wigel = past.view.near if is_local else past.view.everywhere, past.prefix[0]
  sources, groups = prefix_wigel[0].shape[:2]
  kept = keys_wbgel, values_wbgle = (past.view.write(past.suffix[0], jnp.transpose(k_btge, (0, 2, 3, 1)), 3),
                                     past.view.write(past.suffix[1], jnp.transpose(v_btge, (0, 2, 1, 3)), 2))
  # q: query heads of a group, times t. Of one source: its rows' queries meet the prefix in one product.
  q_bgqe = jnp.transpose(q_bthe.reshape(rows, times, groups, -1, width), (0, 2, 3, 1, 4)).reshape(rows, groups, -1, width)
  def by_source(x_bgqx):
    x_irgqx = x_bgqx.reshape(sources, -1, *x_bgqx.shape[1:])
    return jnp.swapaxes(x_irgqx, 1, 2).reshape(sources, groups, -1, x_bgqx.shape[-1])
  def by_row(x_ignx):
    x_igrqx = x_ignx.reshape(sources, groups, rows // sources, -1, x_ignx.shape[-1])
    return jnp.swapaxes(x_igrqx, 1, 2).reshape(rows, groups, -1, x_ignx.shape[-1])
  q_ignqe, parts = by_source(q_bgqe), []
  for w, span in enumerate(decoding.spans(prefix_wigel, 3)):
    seen = reach.seen_btl[:, :, span].reshape(sources, 1, -1, 1, times, span.stop - span.start)
    needed = reach.prefix_w[w] if len(prefix_wigel) > 1 else None
    parts.append(jax.tree.map(by_row, _part_if(needed, q_ignqe, prefix_wigel[w], past.prefix[1][w], seen, cap)))
  for w, span in enumerate(decoding.spans(keys_wbgel, 3, span.stop)):
    seen = reach.seen_btl[:, None, None, None, :, span]
    parts.append(_part_if(reach.suffix_w[w], q_bgqe, keys_wbgel[w], values_wbgle[w], seen, cap))
  # One softmax over all, without joining them.
  most_bgq1 = functools.reduce(jnp.maximum, [part.most for part in parts])
  factors = [jnp.exp(part.most - most_bgq1) for part in parts]
  total_bgq1 = sum(factor * part.total for factor, part in zip(factors, parts))
  mixed_bgqe = sum(factor * part.mixed for factor, part in zip(factors, parts))
  mixed_bgHte = (mixed_bgqe / total_bgq1).astype(q_bthe.dtype).reshape(rows, groups, -1, times, width)
  return jnp.transpose(mixed_bgHte, (0, 3, 1, 2, 4)).reshape(*q_bthe.shape), kept


def _part_if(needed, q_bgne, k_bgel, v_bgle, seen, cap: float) -> _Part:
  """The part, or nothing where nobody needs it: less than any logit; its total is not 0, since a row may see no slot at all."""
  part = functools.partial(_part, cap=cap)
  if needed is None:
    return part(q_bgne, k_bgel, v_bgle, seen)
  none = _Part(*(jnp.full((*q_bgne.shape[:3], size), value, jnp.float32)
                 for size, value in ((1, _MASKED), (1, 1.0), (q_bgne.shape[3], 0.0))))
  return jax.lax.cond(needed, part, lambda *_: none, q_bgne, k_bgel, v_bgle, seen)


def _part(q_bgne, k_bgel, v_bgle, seen, cap: float) -> _Part:
  """Attention to some of the slots, to be joined with others. seen: bool, shaped as n falls into parts, then slots."""
  logit_bgnl = jnp.einsum("bgne,bgel->bgnl", q_bgne, k_bgel, preferred_element_type=jnp.float32)
  split = logit_bgnl.reshape(*logit_bgnl.shape[:2], *(seen.shape[2], -1, *seen.shape[4:]))
  logit_bgnl = jnp.where(seen, softcap(split, cap), _MASKED).reshape(logit_bgnl.shape)
  most_bgn1 = logit_bgnl.max(-1, keepdims=True)
  weight_bgnl = jnp.exp(logit_bgnl - most_bgn1)
  mixed_bgne = jnp.einsum("bgnl,bgle->bgne", weight_bgnl.astype(q_bgne.dtype), v_bgle, preferred_element_type=jnp.float32)
  return _Part(most_bgn1, weight_bgnl.sum(-1, keepdims=True), mixed_bgne)
