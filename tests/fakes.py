"""What the tests of rollouts, values, verifiers and search share: a vocabulary, a fake network, a tiny Gemma."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.models import decoding
from pav_jax.models import gemma
from pav_jax.models.network import Network
from pav_jax.models.network import from_gemma
from pav_jax.problems import steps
from pav_jax.rollouts import jobs

# Tests compile many tiny functions: most of their time would be XLA's optimiser.
jax.config.update("jax_disable_most_optimizations", True)

PAD, EOS, BOS, UNK, SCORE, NL, A, B, C, RIGHT, WRONG = range(11)
SIZE = 11


class Vocabulary:
  """Eleven pieces in Gemma's frame; `RIGHT` and `WRONG` are answer lines of the arithmetic data set, 7 and 3."""

  pieces = ("", "", "", "", "", "\n", "a", "b", "c", "#### 7", "#### 3")
  pad_id, eos_id, bos_id, unk_id, scoring_id, size, fingerprint = PAD, EOS, BOS, UNK, SCORE, SIZE, "eleven"
  step_rule = steps.rule_of("newline", pieces, EOS)

  def decode(self, ids):
    return "".join(self.pieces[i] for i in ids)

  def check_rows(self, rows, published=False):
    assert rows >= self.size and not published

  def encode(self, text):
    return [A + ord(x) % 3 for x in text]


VOCABULARY = Vocabulary()
TOKENS = jobs.token_tables(VOCABULARY, SIZE)
NEVER = [PAD, BOS, UNK, SCORE]


def chain(size: int = SIZE) -> Network:
  """Logits and score from the last token and from how often each token was read: linear in one-hot and counts."""
  def extend(params, cache, token_bt, valid_bt):
    del params
    rows = token_bt.shape[0] // cache.prefix.sources
    at = lambda x: jnp.asarray(x[..., 0, :], int)
    prefix_bl = jnp.repeat(at(cache.prefix.keys_ywigel[0][0][:, 0]), rows, axis=0)
    suffix_bl = at(jnp.concatenate(cache.keys_ywbgel[0], -1)[:, 0]).reshape(len(token_bt), -1)
    held_bl = jnp.arange(prefix_bl.shape[1]) < cache.cut_b[:, None]
    before_bv = ((jax.nn.one_hot(prefix_bl, size) * held_bl[..., None]).sum(1)
                 + (jax.nn.one_hot(suffix_bl, size) * (cache.position_bl >= 0)[..., None]).sum(1))
    slot_t = (cache.clock + jnp.arange(token_bt.shape[1])) % suffix_bl.shape[1]
    position_bt = jnp.where(valid_bt, cache.length_b[:, None] + jnp.arange(token_bt.shape[1]), -1)
    suffix_bl = suffix_bl.at[:, slot_t].set(token_bt)
    grown = cache._replace(
        keys_ywbgel=(tuple(jnp.split(suffix_bl[:, None, None].astype(float), len(cache.keys_ywbgel[0]), -1)),),
        position_bl=cache.position_bl.at[:, slot_t].set(position_bt), clock=cache.clock + token_bt.shape[1],
        length_b=cache.length_b + valid_bt.sum(1, dtype=jnp.int32))
    return _features(token_bt, before_bv), grown

  def read(params, token_bt):
    del params
    tokens = token_bt.astype(jnp.float32)
    return _features(token_bt, jnp.zeros((len(token_bt), size))), decoding.Prefix(((tokens[:, None, None],),), ((tokens[:, None, :, None],),))

  def _features(token_bt, before_bv):
    one_btv = jax.nn.one_hot(token_bt, size)
    return jnp.concatenate([one_btv, before_bv[:, None] + jnp.cumsum(one_btv, axis=1)], axis=-1)

  logits = lambda params, hidden: hidden @ params["logit_dv"]
  return Network(
      init=lambda rng: chain_params(), hidden=lambda params, token_bt: _features(token_bt, jnp.zeros((len(token_bt), size))),
      logits=logits, scores=lambda params, hidden: hidden @ params["score_d"],
      log_probs=lambda params, hidden, target_bt: jnp.take_along_axis(
          jax.nn.log_softmax(logits(params, hidden)), target_bt[..., None], axis=-1)[..., 0],
      computed=lambda params, scoring=False: params, read=read, extend=extend,
      flops=lambda start, stop, logit_count=0: 3 * (stop - start) + stop**2 - start**2 + 7 * logit_count)


CHAIN = chain()


def chain_params(rows: dict | None = None, scores: dict | None = None):
  """Parameters of CHAIN: rows[last] = {next: probability}, an impossible one at -40; scores[last] = logit of the score."""
  logit_dv = np.full((2 * SIZE, SIZE), -40.0, np.float32)
  logit_dv[SIZE:] = 0
  for last, chances in (rows or {}).items():
    for token, p in chances.items():
      logit_dv[last, token] = np.log(p)
  score_d = np.zeros(2 * SIZE, np.float32)
  for last, logit in (scores or {}).items():
    score_d[last] = logit
  return {"logit_dv": jnp.asarray(logit_dv), "score_d": jnp.asarray(score_d)}


def random_chain(seed: int):
  """Parameters of CHAIN under which everything ever read matters."""
  rng = np.random.default_rng(seed)
  return {"logit_dv": jnp.asarray(rng.standard_normal((2 * SIZE, SIZE)) * np.repeat([1.0, 0.3], SIZE)[:, None], jnp.float32),
          "score_d": jnp.asarray(rng.standard_normal(2 * SIZE) * np.repeat([1.0, 0.3], SIZE), jnp.float32)}


# Small enough to compile fast; a window and caps that are felt.
CONFIG = gemma.GemmaConfig(
    num_layers=2, width=16, num_heads=2, num_kv_heads=1, head_width=8, ffn_width=32, query_scale=8**-0.5,
    vocab_size=SIZE, window=5, attention_cap=2.0, logit_cap=4.0)
GEMMA = from_gemma(CONFIG, scoring_id=SCORE, logit_chunk=4)


def gemma_params(seed: int):
  """Parameters of GEMMA with nothing at zero."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(GEMMA.init, jax.random.key(0))
  return jax.tree.map(lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape), jnp.float32), shapes)


class OnEightDevices:
  """A call of a function of a test file, made by a process of its own that has eight simulated devices; `join` it."""

  def __init__(self, file: pathlib.Path, call: str):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join([str(file.parent), str(file.parent.parent), str(file.parent.parent.parent)])}
    self.process = subprocess.Popen([sys.executable, "-c", f"import {file.stem} as t; t.{call}"], env=environment,
                                    stderr=subprocess.PIPE, text=True)

  def join(self):
    """Waits for it; what it wrote on stderr is the message if it failed."""
    _, said = self.process.communicate(timeout=300)
    assert self.process.returncode == 0, said[-2000:]
