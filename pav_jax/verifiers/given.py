"""The values a verifier gives to steps that somebody else wrote.

  1. A row is a prompt and a given response; one causal pass reads the score at
     every token, and so at the bare prompt and at each step's end.
  2. Rows are sorted by length and go through in batches, each as wide as its
     longest: one of a few widths, so that few programs are compiled.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.models import network as network_lib
from pav_jax.models.network import Network
from pav_jax.problems.given import Given
from pav_jax.training import mesh as mesh_lib
from pav_jax.verifiers import implicit

# Tokens of a prompt and its response: the context that Gemma 2 was made for. What is longer a caller leaves out, and counts.
LONGEST = 8192
# A call holds `rows` rows of so many tokens; of longer ones fewer, as the square of their length, which attention takes.
_FULL = 256


def values(arch, params, prompts: list[np.ndarray], given: list[Given], *, rows: int, mesh=None, bar=None) -> list[np.ndarray]:
  """float32 (s + 1,) for each row, in the order given: sigmoid of the score at the bare prompt and at each step's end.

  arch: an architecture (its network is read); params: its parameters, or an `implicit.Pair`.
  prompts: int32 (t,) each, bos included, not empty; given: their responses,
  which may have no step. rows: that are read together, of up to 256 tokens.
  mesh: its parts share a call's rows. bar: a progress bar that counts rows.
  """
  if not isinstance(params, implicit.Pair):
    params = network_lib.for_decoding(arch.network, params, scoring=True)
  parts = mesh_lib.num_parts(mesh)
  length_b = np.array([len(prompt_t) + len(one.token_t) for prompt_t, one in zip(prompts, given, strict=True)], int)
  order_b = np.argsort(-length_b, kind="stable")
  found = [None] * len(order_b)
  start = 0
  while start < len(order_b):
    width = _width(int(length_b[order_b[start]]))
    full = max(1, min(rows, rows * _FULL**2 // width**2) // parts) * parts
    mine_b = order_b[start:start + full]
    start += len(mine_b)
    # The last batch of all, alone, has fewer rows: a power of two of them on each part.
    count = min(full, parts << max(0, -(-len(mine_b) // parts) - 1).bit_length())
    token_bt = np.zeros((count, width), np.int32)
    for row_t, b in zip(token_bt, mine_b):
      row_t[:length_b[b]] = np.concatenate([prompts[b], given[b].token_t])
    if isinstance(params, implicit.Pair):
      start_b = np.pad([len(prompts[b]) for b in mine_b], (0, count - len(mine_b)))
      put = (lambda x: x) if mesh is None else lambda x: mesh_lib.put_rows(x, mesh)
      score_bt = implicit.every_value(arch.network, params.model, params.reference, params.beta, arch.config.score_shift,
                                      put(token_bt), put(start_b), mesh=mesh)
    else:
      score_bt = _every_score(arch.network, params, token_bt, mesh=mesh)
    score_bt = mesh_lib.fetch(score_bt)
    for score_t, b in zip(score_bt, mine_b):
      found[b] = score_t[len(prompts[b]) + np.concatenate([[-1], given[b].end_s]).astype(int)]
    if bar is not None:
      bar.update(len(mine_b))
  return found


@functools.partial(jax.jit, static_argnames=("network", "mesh"))
def _every_score(network: Network, params, token_bt, *, mesh):
  """float32 (b, t): the sigmoid of the score behind every token; a row is right-padded, which a causal pass does not see."""
  def own(params, token_bt):
    hidden_btd, _ = network.read(params, token_bt)
    return jax.nn.sigmoid(network.scores(params, hidden_btd))
  return mesh_lib.by_part(mesh, own, params, jnp.asarray(token_bt))


def _width(length: int) -> int:
  """The least of 32, 48, 64, 96, 128, 192, ... that is not below the length."""
  power = 32
  while power < length:
    power *= 2
  return power * 3 // 4 if power > 32 and power * 3 // 4 >= length else power
