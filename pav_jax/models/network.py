"""What the rest of the house knows of a network: a few pure functions.

Search, rollouts and losses take a `Network`, never a module, so a test can
hand them a fake of ten lines.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from pav_jax.models import gemma
from pav_jax.models import readout
from pav_jax.models import size


class Network(NamedTuple):
  """Pure functions of parameters; shapes in the legend's letters.

  init(rng) -> params
  hidden(params, token_bt) -> hidden_btd
  logits(params, hidden_xd) -> logit_xv, float32
  scores(params, hidden_xd) -> score_x, float32: the logit of the scoring token
  log_probs(params, hidden_btd, target_bt) -> log_prob_bt, float32
  read(params, token_bt) -> (hidden_btd, prefix): rows from their first token on
  compute(params, scoring=False) -> the parameters in the type of the computation, less to read at every token;
    scoring keeps what `scores` reads in float32
  unstacked(params) -> the parameters as extend reads them: a layer at a time, each array by itself
  extend(unstacked, cache, token_bt, valid_bt) -> (hidden_btd, cache): a cache is a prefix, `decoding.begin`
  flops(start, stop, logit_count) -> FLOPs of reading positions [start, stop)
  """

  init: Callable[..., Any]
  hidden: Callable[..., Any]
  logits: Callable[..., Any]
  scores: Callable[..., Any]
  log_probs: Callable[..., Any]
  read: Callable[..., Any]
  compute: Callable[..., Any]
  unstacked: Callable[..., Any]
  extend: Callable[..., Any]
  flops: Callable[..., Any]


def from_gemma(config: gemma.GemmaConfig, *, scoring_id: int, logit_chunk: int = 128) -> Network:
  """The functions of a Gemma 2 of this shape; logit_chunk is in tokens of a row."""
  module = gemma.Gemma(config)
  apply = lambda params, *args, **kwargs: module.apply({"params": params}, *args, **kwargs)

  return Network(
      init=lambda rng: module.init(rng, jnp.zeros((1, 1), jnp.int32))["params"],
      hidden=lambda params, token_bt: apply(params, token_bt)[0],
      logits=lambda params, hidden: readout.logits(config, params, hidden),
      scores=lambda params, hidden: readout.scores(config, params, hidden, scoring_id),
      log_probs=lambda params, hidden_btd, target_bt: readout.target_log_probs(
          config, params, hidden_btd, target_bt, logit_chunk),
      read=lambda params, token_bt: apply(params, token_bt, keep=True),
      compute=lambda params, scoring=False: gemma.compute(config, params, scoring),
      unstacked=lambda params: gemma.unstacked(config, params),
      extend=lambda params, cache, token_bt, valid_bt: gemma.extend(config, params, cache, token_bt, valid_bt),
      flops=lambda start, stop, logit_count=0: size.forward_flops(config, start, stop, logit_count),
  )
