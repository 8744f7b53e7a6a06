"""How large a network is and what it costs to run: parameters and FLOPs, counted from its shape."""

from pav_jax.models.gemma import GemmaConfig


def num_params(config: GemmaConfig) -> tuple[int, int]:
  """(parameters of the embedding, parameters of everything else)."""
  c = config
  attention = c.width * c.head_width * (2 * c.num_heads + 2 * c.num_kv_heads)
  return c.vocab_size * c.width, c.num_layers * (attention + 3 * c.width * c.ffn_width) + num_scales(c)


def num_scales(config: GemmaConfig) -> int:
  """Parameters of all norms."""
  c = config
  return c.num_layers * (4 * c.width + 2 * c.head_width * c.qk_norm) + c.width


def forward_flops(config: GemmaConfig, start, stop, logit_count=0):
  """FLOPs of reading positions [start, stop) with everything before them cached.

  Two per parameter and token in the layers; 4 * heads * head width per pair of
  query and visible key; 2 * vocabulary * width for each of logit_count
  positions whose logits are computed. start, stop, logit_count: numbers or
  numpy arrays; the arithmetic is exact, padding does not count.
  """
  c = config
  token_flops = 2 * (num_params(c)[1] - num_scales(c))
  whole = lambda n: n * (n + 1) // 2  # keys seen by positions 0 .. n - 1 without a window
  def windowed(n):
    beyond = n * (n > c.window) - c.window * (n > c.window)
    return whole(n) - whole(beyond)
  local, everywhere = c.num_local_layers, c.num_layers - c.num_local_layers
  pairs = local * (windowed(stop) - windowed(start)) + everywhere * (whole(stop) - whole(start))
  return ((stop - start) * token_flops + 4 * c.num_heads * c.head_width * pairs
          + 2 * c.vocab_size * c.width * logit_count)
