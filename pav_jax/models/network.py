"""What the rest of the house knows of a network: a few pure functions.

Search, rollouts and losses take a `Network`, never a module, so a test can
hand them a fake of ten lines.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pav_jax.models import gemma
from pav_jax.models import readout
from pav_jax.models import size
from pav_jax.training import mesh as mesh_lib


class Network(NamedTuple):
  """Pure functions of parameters; shapes in the legend's letters.

  init(rng) -> params
  hidden(params, token_bt) -> hidden_btd
  logits(params, hidden_xd) -> logit_xv, float32
  scores(params, hidden_xd) -> score_x, float32: the logit of the scoring token
  log_probs(params, hidden_btd, target_bt) -> log_prob_bt, float32
  computed(params, scoring=False) -> the parameters as read and extend take them, and logits and scores may: in the type of
    the computation, a layer at a time; scoring keeps what `scores` reads in float32
  read(computed, token_bt) -> (hidden_btd, prefix): rows from their first token on
  extend(computed, cache, token_bt, valid_bt) -> (hidden_btd, cache): a cache is a prefix, `decoding.begin`
  flops(start, stop, logit_count) -> FLOPs of reading positions [start, stop)
  """

  init: Callable[..., Any]
  hidden: Callable[..., Any]
  logits: Callable[..., Any]
  scores: Callable[..., Any]
  log_probs: Callable[..., Any]
  computed: Callable[..., Any]
  read: Callable[..., Any]
  extend: Callable[..., Any]
  flops: Callable[..., Any]


def from_gemma(config: gemma.GemmaConfig, *, scoring_id: int, logit_chunk: int = 128) -> Network:
  """The functions of a Gemma of this shape; logit_chunk is in tokens of a row."""
  module = gemma.Gemma(config)
  apply = lambda params, token_bt: module.apply({"params": params}, token_bt)

  return Network(
      init=lambda rng: module.init(rng, jnp.zeros((1, 1), jnp.int32))["params"],
      hidden=apply,
      logits=lambda params, hidden: readout.logits(config, params, hidden),
      scores=lambda params, hidden: readout.scores(config, params, hidden, scoring_id),
      log_probs=lambda params, hidden_btd, target_bt: readout.target_log_probs(
          config, params, hidden_btd, target_bt, logit_chunk),
      computed=lambda params, scoring=False: gemma.computed(config, params, scoring),
      read=lambda params, token_bt: gemma.read(config, params, token_bt),
      extend=lambda params, cache, token_bt, valid_bt: gemma.extend(config, params, cache, token_bt, valid_bt),
      flops=lambda start, stop, logit_count=0: size.forward_flops(config, start, stop, logit_count),
  )


def token_log_probs(network: Network, params, token_bt):
  """float32 (b, t - 1): log p(token t + 1 | tokens up to t), in chunks of the vocabulary's logits."""
  return network.log_probs(params, network.hidden(params, token_bt)[:, :-1], token_bt[:, 1:])


def for_decoding(network: Network, params, scoring: bool = False):
  """The parameters as they lie while rows are drawn or scored: computed, and cut over model alone."""
  return mesh_lib.over_model_alone(_computed(network, params, scoring))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _computed(network: Network, params, scoring: bool):
  return network.computed(params, scoring)
