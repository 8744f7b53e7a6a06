"""What a training step keeps on a chip, counted by hand: the compiler's figures must not be far from it."""

import jax.numpy as jnp

from pav_jax.models import size
from pav_jax.models.gemma import GemmaConfig


def training_bytes(config: GemmaConfig, mesh, *, rows: int, width: int, pieces: int, logit_chunk: int, logits: bool) -> dict[str, float]:
  """Bytes a chip, by what they are for: `rows` rows of `width` tokens in so many pieces; `logits`: the loss reads the vocabulary's.

  state      parameters and Adam's two moments, float32, cut over all chips; norms' scales are whole on each, one head of
             keys and values on each of a model group
  gradients  as large as the parameters; those of a piece and their sum, where there are pieces
  cast       the weights in the type of the computation, if that is another: the compiler casts all layers' before the first (barriers
             do not keep it from that)
  kept       each layer's input, which its backward pass begins from; its tokens over model where they divide
  layer      one layer's own in its backward pass: the attention's logits, their softmax and the gradients of both in float32;
             gate, up, their product and the gradients of these
  logits     a chunk's, their softmax and its gradient, float32
  embedding  for logits it is gathered over fsdp, in the type of the computation, and the pieces' gradients of it are added, float32
  """
  c, model, item = config, mesh["model"], jnp.dtype(config.dtype).itemsize
  parts = mesh["data"] * mesh["fsdp"]
  norms = size.num_scales(c)
  one_head = 2 * c.num_layers * c.width * c.head_width if c.num_kv_heads == 1 else 0
  parameters = 4 * ((sum(size.num_params(c)) - norms - one_head) / (mesh["fsdp"] * model) + one_head / mesh["fsdp"] + norms)
  tokens = rows / pieces / parts * width
  spread = model if rows / pieces % parts == 0 and width % model == 0 else 1
  return {
      "state": 3 * parameters,
      "gradients": parameters * (2 if pieces > 1 else 1),
      "cast": 0.0 if c.dtype == c.param_dtype else parameters / 4 * item,
      "kept": tokens * c.width * item * c.num_layers / spread,
      "layer": tokens * (4 * 4 * width * c.num_heads + 6 * item * c.ffn_width) / model,
      "logits": logits * 3 * 4 * tokens / width * logit_chunk * c.vocab_size / model,
      "embedding": logits * (item + 4) * c.vocab_size * c.width / model}
