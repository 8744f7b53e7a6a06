"""The same network in other samplers: gemma's, Tunix's and Hugging Face's, from our parameters.

Each is `sample(prompt_bt, new) -> token_bt`: rows of one length, `new` tokens
each, temperature 1, nothing cut, no end before `new`. Caches are as long as
they need be and shapes are warmed up before they are timed.
"""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.models import gemma
from pav_jax.models import weights
from pav_jax.models.formats import huggingface
from pav_jax.models.formats import official

sys.path.append(str(pathlib.Path(__file__).parents[2]))

PAD, EOS, BOS = 0, 1, 2
NEVER = (PAD, EOS, BOS)


class Ids:
  """A tokenizer whose text is the ids themselves, in decimals; what the samplers ask of one."""

  VERSION = None
  FORBIDDEN_TOKENS = ()
  FORMAT = None  # of dialogues, which there are none of

  class special_tokens:
    PAD, EOS, BOS, END_OF_TURN, BEGIN_OF_TOOL_RESPONSE, START_OF_IMAGE = PAD, EOS, BOS, EOS, EOS, -1

  def encode(self, text, add_bos=False, **_):
    return [int(x) for x in text.split()]

  def decode(self, ids, **_):
    return " ".join(str(int(x)) for x in ids)

  bos_id = lambda self: BOS
  eos_id = lambda self: EOS
  pad_id = lambda self: PAD
  dedup_bos_ids = lambda self, ids: ids


def _texts(prompt_bt):
  return [" ".join(map(str, prompt_t)) for prompt_t in prompt_bt]


def gemma_model(config: gemma.GemmaConfig):
  """The network of the gemma library."""
  from tests.gemma_library import gm
  pattern = (gm.nn.AttentionType.LOCAL_SLIDING, gm.nn.AttentionType.GLOBAL)
  return gm.nn.Transformer(dtype=jnp.float32, config=gm.nn.config.TransformerConfig(
      num_embed=config.vocab_size, embed_dim=config.width, hidden_dim=config.ffn_width, num_heads=config.num_heads,
      head_dim=config.head_width, num_kv_heads=config.num_kv_heads, final_logit_softcap=config.logit_cap,
      use_post_attn_norm=True, use_post_ffw_norm=True, attn_logits_soft_cap=config.attention_cap,
      attention_types=gm.nn.config.make_attention_layers_types(pattern, num_layers=config.num_layers),
      query_pre_attn_norm=gm.nn.config.QueryPreAttentionNormalisation.BY_ONE_OVER_SQRT_HEAD_DIM,
      sliding_window_size=config.window, transpose_gating_einsum=official.transposed_gating(config)))


def of_gemma(config: gemma.GemmaConfig, params):
  """gm.text.Sampler of the gemma library."""
  from tests.gemma_library import gm
  model = gemma_model(config)
  tree = _nested(weights.to_official(params, config))

  def sample(prompt_bt, new, seed=0):
    sampler = gm.text.Sampler(
        model=model, params=tree, tokenizer=Ids(), sampling=gm.text.RandomSampling(), forbidden_tokens=NEVER,
        cache_length=prompt_bt.shape[1] + new, max_out_length=new, pad_length=prompt_bt.shape[1])
    out = sampler.sample(_texts(prompt_bt), max_new_tokens=new, rng=seed, return_state=True)
    return np.asarray(out.state.predicted_tokens)[:, :new]
  return sample


def _nested(flat):
  """{'transformer/layer_0/attn/q_einsum': {'w': x}} -> the nesting gm's modules and Tunix's loader want."""
  tree = {}
  for name, leaves in flat.items():
    *path, last = name.split("/")[1:]
    functools.reduce(lambda node, part: node.setdefault(part, {}), path, tree)[last] = (
        leaves["w"] if last in ("linear", "gating_einsum") else dict(leaves))
  return tree


def tunix_shape(config: gemma.GemmaConfig, **options):
  """The config of Tunix's network."""
  from tunix.models.gemma import model as tunix_gemma
  kinds = (tunix_gemma.AttentionType.LOCAL_SLIDING, tunix_gemma.AttentionType.GLOBAL)
  return tunix_gemma.ModelConfig(
      num_layers=config.num_layers, num_embed=config.vocab_size, embed_dim=config.width, hidden_dim=config.ffn_width,
      num_heads=config.num_heads, head_dim=config.head_width, num_kv_heads=config.num_kv_heads,
      final_logit_softcap=config.logit_cap, use_post_attn_norm=True, use_post_ffw_norm=True,
      attention_types=[kinds[i % 2] for i in range(config.num_layers)], attn_logits_soft_cap=config.attention_cap,
      sliding_window_size=config.window, **options)


def of_tunix(config: gemma.GemmaConfig, params):
  """Tunix's own ("vanilla") sampler on its Gemma 2."""
  from flax import nnx
  from tunix.generate import sampler as tunix_sampler
  from tunix.models.gemma import model as tunix_gemma
  if official.transposed_gating(config):
    raise ValueError("above the 2B's width the gating matrix lies the other way round")
  model = tunix_gemma.module_from_linen_variables(
      module_factory=lambda: tunix_gemma.Gemma(tunix_shape(config), rngs=nnx.Rngs(params=0)),
      variables=_nested(weights.to_official(params, config)), map_key_fn=tunix_gemma._map_linen_var_names,
      assign_val_fn=tunix_gemma._assign_linen_params_to_nnx_state)

  @functools.cache
  def sampler(slots):
    return tunix_sampler.Sampler(model, Ids(), tunix_sampler.CacheConfig(
        cache_size=slots, num_layers=config.num_layers, num_kv_heads=config.num_kv_heads, head_dim=config.head_width))

  def sample(prompt_bt, new, seed=0):
    width = prompt_bt.shape[1]
    out = sampler(width + new)(  # puts BOS before the text by itself
        _texts(prompt_bt[:, 1:]), max_generation_steps=new, max_prompt_length=width, temperature=1.0, top_p=1.0, top_k=0,
        forbidden_tokens=NEVER, eos_tokens=[EOS], seed=seed)
    return np.stack([np.asarray(t)[:new] for t in out.tokens])
  return sample


def of_transformers(config: gemma.GemmaConfig, params):
  """Hugging Face's generate on PyTorch, on a CPU."""
  import torch
  import transformers
  shape = transformers.Gemma2Config(
      vocab_size=config.vocab_size, hidden_size=config.width, intermediate_size=config.ffn_width,
      num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads, num_key_value_heads=config.num_kv_heads,
      head_dim=config.head_width, query_pre_attn_scalar=round(config.query_scale**-2), sliding_window=config.window,
      attn_logit_softcapping=config.attention_cap, final_logit_softcapping=config.logit_cap, pad_token_id=PAD,
      eos_token_id=EOS, bos_token_id=BOS, attn_implementation="eager",
      layer_types=[("sliding_attention", "full_attention")[i % 2] for i in range(config.num_layers)])
  model = transformers.Gemma2ForCausalLM(shape).eval()
  model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in _hugging_face(params, config).items()})

  def sample(prompt_bt, new, seed=0):
    torch.manual_seed(seed)
    ids = torch.from_numpy(np.asarray(prompt_bt, np.int64))
    with torch.inference_mode():
      out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                           min_new_tokens=new, max_new_tokens=new, suppress_tokens=[PAD, BOS])
    return out[:, ids.shape[1]:].numpy()
  return sample


def _hugging_face(params, config):
  """Our tree under the names of transformers' Gemma2ForCausalLM."""
  named = {f"model.{name}": x for name, x in weights.theirs(params, config, huggingface.TABLE)}
  return named | {"lm_head.weight": named["model.embed_tokens.weight"]}


PEERS = {"gemma Sampler": of_gemma, "Tunix Sampler": of_tunix, "transformers generate": of_transformers}
