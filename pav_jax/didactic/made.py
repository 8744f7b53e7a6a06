"""The policy: MADE, a masked autoencoder for distributions (Germain et al., 1502.03509), and its sampler.

Tokens go in as one-hot vectors; a hidden unit of degree n sees the first n
tokens, logits of position t see units of degree <= t, that is the tokens before
t. One forward pass gives all conditionals. Units stand sorted by degree, so
that a token's arrival makes one block of each layer computable: sampling a
sequence costs one forward pass, not one a token.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Made(nn.Module):
  """The network. length, vocabulary: of the sequences; width: units a layer; layers: hidden layers."""

  length: int
  vocabulary: int
  width: int
  layers: int

  @property
  def degree_u(self) -> np.ndarray:
    """int (width,), ascending, 1 .. length - 1 as evenly as they go: how many tokens a hidden unit sees."""
    return 1 + np.arange(self.width) * (self.length - 1) // self.width

  def masks(self) -> list[np.ndarray]:
    """bool (in, out) of every layer: which weights there are."""
    token_degree = np.repeat(np.arange(1, self.length + 1), self.vocabulary)
    hidden = self.degree_u
    masks = [token_degree[:, None] <= hidden[None, :]]
    masks += [hidden[:, None] <= hidden[None, :]] * (self.layers - 1)
    return [*masks, hidden[:, None] < token_degree[None, :]]

  @nn.compact
  def __call__(self, tokens_bt):
    """Log-probabilities, float32 (b, t, v), of every token given those before it."""
    x = jax.nn.one_hot(tokens_bt, self.vocabulary).reshape(tokens_bt.shape[0], -1)
    masks = self.masks()
    for n, mask in enumerate(masks):
      # Scaled for the weights that are there: a masked unit's fan-in is a part of the layer.
      scale = np.sqrt((2.0 if n < self.layers else 1.0) / np.maximum(self._fan_in(n), 1))
      kernel = self.param(f"kernel_{n}", _normal(scale), mask.shape)
      bias = self.param(f"bias_{n}", nn.initializers.zeros, mask.shape[1:])
      x = x @ (kernel * mask) + bias
      if n < self.layers:
        x = nn.relu(x)
    return jax.nn.log_softmax(x.reshape(*tokens_bt.shape, self.vocabulary))

  def _fan_in(self, n: int) -> np.ndarray:
    # Of a one-hot input only one entry a position is on.
    return self.masks()[n].sum(axis=0) / (self.vocabulary if n == 0 else 1)


def _normal(scale: np.ndarray):
  """Normal numbers times scale, as Flax draws parameters. gemma, once it has made parameters of a type, has every linen module
  of the process hand its initialisers a type, too, None by default."""
  def init_fn(key, shape, dtype=None):
    return scale * jax.random.normal(key, shape, dtype or jnp.float32)
  return init_fn


def init(made: Made, key):
  """Fresh parameters."""
  return made.init(key, jnp.zeros((1, made.length), jnp.int32))


def sample(made: Made, params, key, rows: int) -> jnp.ndarray:
  """tokens_bt, int32 (rows, length): sequences of the policy.

  Before token t is drawn the block of units of degree t adds its share to all that see it.
  """
  p, v = params["params"], made.vocabulary
  kernels = [p[f"kernel_{n}"] * mask for n, mask in enumerate(made.masks())]
  end_t = np.searchsorted(made.degree_u, np.arange(made.length), side="right")
  start_t = np.concatenate([[0], end_t[:-1]])
  size = int((end_t - start_t).max())
  # Blocks are of one size; a shorter one reaches into the next, whose rows are zero.
  row_tu = start_t[:, None] + np.arange(size)
  inside = (np.arange(size) < (end_t - start_t)[:, None])[..., None]
  blocks = [jnp.where(inside, kernel[np.minimum(row_tu, made.width - 1)], 0) for kernel in kernels[1:]]
  pad = lambda bias: jnp.broadcast_to(jnp.pad(bias, (0, size)), (rows, len(bias) + size))
  sums = [pad(p[f"bias_{n}"]) for n in range(made.layers)]
  sums.append(jnp.broadcast_to(p[f"bias_{made.layers}"], (rows, made.length * v)))

  def one(sums, at):
    t, start, uniform_b, of_token, blocks = at
    for n, block in enumerate(blocks):
      below = nn.relu(jax.lax.dynamic_slice_in_dim(sums[n], start, size, axis=1)) @ block
      sums = [*sums[:n + 1], sums[n + 1].at[:, :below.shape[1]].add(below), *sums[n + 2:]]
    logits_bv = jax.lax.dynamic_slice_in_dim(sums[-1], t * v, v, axis=1)
    cumulative_bv = jnp.cumsum(jax.nn.softmax(logits_bv), axis=1)
    # Rounding leaves the last sum a hair off 1: a draw is held within the vocabulary.
    token_b = jnp.minimum((cumulative_bv < uniform_b[:, None]).sum(axis=1), v - 1)
    # A product, not a look-up: on a CPU it is the faster.
    return [sums[0].at[:, :made.width].add(jax.nn.one_hot(token_b, v) @ of_token), *sums[1:]], token_b

  uniform_tb = jax.random.uniform(key, (made.length, rows))
  of_token = kernels[0].reshape(made.length, v, made.width)
  _, tokens_tb = jax.lax.scan(one, sums, (np.arange(made.length), start_t, uniform_tb, of_token, blocks))
  return tokens_tb.T.astype(jnp.int32)
