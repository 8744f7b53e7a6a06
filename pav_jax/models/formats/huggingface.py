"""Hugging Face's folders: config.json, safetensors in one or several shards, as transformers and vLLM read and write them.

Only safetensors: `.bin` and `.pt` are pickles, which run what is in them.
JSON here is anybody's: names in it are names of files beside it, never paths.
"""

import functools
import json
import os
import re
from collections.abc import Iterator

from etils import epath
import numpy as np
import safetensors
import safetensors.numpy

from pav_jax.errors import UserError
from pav_jax.models import gemma
from pav_jax.models.formats import names
from pav_jax.training import files as files_lib

TABLE = names.Table("layers.{}.", {
    "embedding": ("embed_tokens.weight", "v d"),
    "final_norm/scale": ("norm.weight", "d"),
    "layers/attention/query": ("self_attn.q_proj.weight", "(h e) d"),
    "layers/attention/key_value": ("self_attn.k_proj.weight self_attn.v_proj.weight", "(g e) d"),
    "layers/attention/out": ("self_attn.o_proj.weight", "d (h e)"),
    "layers/attention/query_norm/scale": ("self_attn.q_norm.weight", "e"),
    "layers/attention/key_norm/scale": ("self_attn.k_norm.weight", "e"),
    "layers/ffn/gate_up": ("mlp.gate_proj.weight mlp.up_proj.weight", "f d"),
    "layers/ffn/down": ("mlp.down_proj.weight", "d f"),
    "layers/pre_attention_norm/scale": ("input_layernorm.weight", "d"),
    "layers/post_attention_norm/scale": ("post_attention_layernorm.weight", "d"),
    "layers/pre_ffn_norm/scale": ("pre_feedforward_layernorm.weight", "d"),
    "layers/post_ffn_norm/scale": ("post_feedforward_layernorm.weight", "d"),
})
_PREFIX = re.compile(r"^(model\.language_model\.|language_model\.model\.|model\.|)(?=embed_tokens\.|layers\.|norm\.)")
_HEADS = ("lm_head.weight", "language_model.lm_head.weight")
# Images, which text does without.
_OTHERS = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
_TYPES = ("F32", "BF16", "F16")
_INDEX = "model.safetensors.index.json"
_MOST_JSON = 64 * 2**20  # bytes; the index of a model of a thousand layers is a tenth of it
_SHARD = 2 * 2**30

# What transformers takes for a key that config.json leaves out (5.24.0, Gemma2Config and Gemma3TextConfig).
_COMMON = {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
           "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096,
           "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "attention_bias": False}
_DEFAULTS = {
    "gemma2": {**_COMMON, "vocab_size": 256_000, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": {**_COMMON, "vocab_size": 262_208, "attn_logit_softcapping": None, "final_logit_softcapping": None},
}
# What our networks do, and a file may not ask for otherwise.
_FIXED = {"hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "attention_bias": False}
_POSITIONS = {False: 8192, True: 32_768}  # how many a server allows for: what Gemma 2 and the smallest Gemma 3 were trained for
_KINDS = ("full_attention", "sliding_attention")


def is_ours(path: epath.Path) -> bool:
  """Whether a path is such a folder: a config.json of a model, or weights in it."""
  return (path / "config.json").exists() or (path / _INDEX).exists() or (path / "model.safetensors").exists()


def _json(path: epath.Path) -> dict:
  with files_lib.told(path, "read"):
    size = os.stat(path).st_size
  try:
    found = json.loads(files_lib.read(path)) if size <= _MOST_JSON else None
  except (ValueError, RecursionError):
    found = None
  if not isinstance(found, dict):
    raise UserError(f"{path} is no JSON object of at most {_MOST_JSON} bytes")
  return found


def config_of(path: epath.Path) -> gemma.GemmaConfig:
  """The shape that a config.json names. UserError for another family, and for what our networks do not do."""
  found = _json(path)
  kind = found.get("model_type")
  if kind == "gemma3" and isinstance(found.get("text_config"), dict):
    found, kind = found["text_config"], "gemma3_text"
  if kind not in _DEFAULTS:
    raise UserError(f"{path}: model_type {kind!r} is none of gemma2, gemma3_text, gemma3")
  c = _DEFAULTS[kind] | {key: found[key] for key in _DEFAULTS[kind] if key in found}
  for key, value in _FIXED.items():
    if c[key] != value:
      raise UserError(f"{path}: {key} {c[key]!r} is not {value!r}, all that is known here")
  whole = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "vocab_size",
           "sliding_window")
  for key in whole:
    if type(c[key]) is not int or not 1 <= c[key] < 2**24:
      raise UserError(f"{path}: {key} {c[key]!r} is no whole number from 1 to {2**24}")
  for key in ("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"):
    if not (c[key] is None or isinstance(c[key], (int, float)) and c[key] > 0):
      raise UserError(f"{path}: {key} {c[key]!r} is not above 0")
  local, local_base, global_base, scale = _attention(path, found, kind, c["num_hidden_layers"])
  layers, width, heads, kv_heads, head, ffn, rows, window = (c[key] for key in whole)
  return gemma.GemmaConfig(
      layers, width, heads, kv_heads, head, ffn, c["query_pre_attn_scalar"]**-0.5, vocab_size=rows, window=window,
      attention_cap=c["attn_logit_softcapping"] or 0.0, logit_cap=c["final_logit_softcapping"] or 0.0, qk_norm=kind == "gemma3_text",
      local_per_global=local, local_rope_base=local_base, global_rope_base=global_base, global_rope_scale=scale)


def _attention(path: epath.Path, found: dict, kind: str, layers: int) -> tuple[int, float, float, float]:
  """(local layers to a global one, rotary base of the local ones, of the global ones, what positions are divided by there)."""
  period = found.get("sliding_window_pattern", found.get("_sliding_window_pattern", 6)) if kind == "gemma3_text" else 2
  kinds = found.get("layer_types")
  if kinds:
    if not isinstance(kinds, list) or len(kinds) != layers or set(kinds) - set(_KINDS):
      raise UserError(f"{path}: layer_types are not {layers} of {', '.join(_KINDS)}")
    # Where none of few layers is global, any longer period says the same.
    period = kinds.index(_KINDS[0]) + 1 if _KINDS[0] in kinds else max(period, layers + 1)
    if kinds != [_KINDS[bool((i + 1) % period)] for i in range(layers)]:
      raise UserError(f"{path}: layer_types are not so many local layers, then a global one, again and again")
  if type(period) is not int or period < 1:
    raise UserError(f"{path}: sliding_window_pattern {period!r} is no whole number from 1")
  base = 10_000.0 if kind == "gemma2" else 1_000_000.0
  ropes = found.get("rope_parameters") or {}
  if kind == "gemma2":
    whole = local = ropes or {"rope_theta": found.get("rope_theta", base)}
  else:
    whole = ropes.get("full_attention") or {"rope_theta": found.get("rope_theta", base), **(found.get("rope_scaling") or {})}
    local = ropes.get("sliding_attention") or {"rope_theta": found.get("rope_local_base_freq", 10_000.0)}
  for rope, known in ((whole, ("default", "linear")), (local, ("default",))):
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) not in known:
      raise UserError(f"{path}: rotary embeddings {rope!r} are of no kind that is known here: {', '.join(known)}")
  try:
    said = float(local.get("rope_theta", 10_000.0)), float(whole.get("rope_theta", base)), float(whole.get("factor", 1.0))
  except (TypeError, ValueError):
    said = (0.0,)
  if not all(0 < x < float("inf") for x in said):
    raise UserError(f"{path}: rotary embeddings {local!r}, {whole!r} have bases and factors above 0")
  return (period - 1, *said)


def config_json(config: gemma.GemmaConfig, ids: dict[str, int], dtype: str, score: bool) -> dict:
  """The config.json of a network of this shape, for transformers 4.57 and later, and vLLM; the inverse of `config_of`.

  ids: pad, bos and eos; dtype: of the weights; score: they are a reward model's (`score.weight`).
  """
  c = config
  ropes = {"rope_theta": c.global_rope_base}
  both = {"hidden_size": c.width, "intermediate_size": c.ffn_width, "num_hidden_layers": c.num_layers,
          "num_attention_heads": c.num_heads, "num_key_value_heads": c.num_kv_heads, "head_dim": c.head_width,
          "query_pre_attn_scalar": _whole(c.query_scale**-2), "sliding_window": c.window, **_FIXED,
          "attn_logit_softcapping": c.attention_cap or None, "final_logit_softcapping": c.logit_cap or None,
          "vocab_size": c.vocab_size, "max_position_embeddings": _POSITIONS[c.qk_norm], "tie_word_embeddings": True,
          "layer_types": [_KINDS[bool(c.is_local(i))] for i in range(c.num_layers)],
          "dtype": dtype, "torch_dtype": dtype, **{f"{name}_token_id": i for name, i in ids.items()}}
  if c.qk_norm:
    kind, name = "gemma3_text", "Gemma3"
    scaling = {"rope_type": "linear", "factor": c.global_rope_scale} if c.global_rope_scale != 1 else {"rope_type": "default"}
    # Said twice: for transformers before version 5, and since.
    both |= {"sliding_window_pattern": c.local_per_global + 1, "rope_local_base_freq": c.local_rope_base, **ropes,
             "rope_scaling": scaling if c.global_rope_scale != 1 else None,
             "rope_parameters": {"full_attention": {**ropes, **scaling},
                                 "sliding_attention": {"rope_theta": c.local_rope_base, "rope_type": "default"}}}
  else:
    kind, name = "gemma2", "Gemma2"
    both |= {**ropes, "rope_parameters": {**ropes, "rope_type": "default"}}
  if score:  # regression: vLLM hands out the logit as it is
    both |= {"num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "problem_type": "regression"}
  text = "Text" if c.qk_norm and score else ""
  return {"model_type": kind, "architectures": [f"{name}{text}For{'SequenceClassification' if score else 'CausalLM'}"], **both}


def check_written(config: gemma.GemmaConfig):
  """UserError for a shape that no config.json can name."""
  c = config
  if not c.qk_norm and (c.local_rope_base != c.global_rope_base or c.global_rope_scale != 1 or c.local_per_global != 1):
    raise UserError("without norms of queries and keys it is Gemma 2, which has one rotary base and one global layer in two: this network has not")


def _whole(x: float) -> int | float:
  return round(x) if abs(x - round(x)) < 1e-6 * x else x


def look(path: epath.Path) -> names.Files:
  """What a folder holds; no weight is read. UserError for one that is not whole, or holds something else."""
  if files_lib.is_remote(path):
    raise UserError(f"{path}: safetensors are read from a local disk: copy the folder")
  tensors, left_out, head = {}, 0, None
  found = _tensors(path)
  config = config_of(path / "config.json")
  for name, tensor in found.items():
    if name in _HEADS:
      head = name, tensor
    elif name.startswith(_OTHERS):
      left_out += 1
    else:
      short = _PREFIX.sub("", name)
      if short in tensors:
        raise UserError(f"{path}: {short} comes twice, under two prefixes")
      tensors[short] = tensor
  if head and "embed_tokens.weight" in tensors:
    tensors["embed_tokens.weight"] = _tied(path, *head, tensors["embed_tokens.weight"])
  return names.Files(str(path), "safetensors", config, TABLE, tensors, left_out)


def _tied(path: epath.Path, name: str, head: names.Tensor, embedding: names.Tensor) -> names.Tensor:
  """The embedding, which says when it is read that the head is another."""
  error = UserError(f"{path}: {name} is not the embedding: a network with a head of its own is no Gemma")
  if head.shape != embedding.shape:
    raise error
  def read():
    x = embedding.read()
    if not np.array_equal(x.view(f"u{x.itemsize}"), (y := head.read()).view(f"u{y.itemsize}")):
      raise error
    return x
  return names.Tensor(embedding.shape, read)


def _tensors(path: epath.Path) -> dict[str, names.Tensor]:
  """All tensors of a folder's shards, by their names in the files."""
  if (path / _INDEX).exists():
    where = _json(path / _INDEX).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(x, str) and x == os.path.basename(x) and x.endswith(".safetensors")
                                              for x in where.values()):
      raise UserError(f"{path / _INDEX}: weight_map does not say in which .safetensors file of this folder each tensor is")
  else:
    where = None
    if not (path / "model.safetensors").exists():
      pickles = sorted(x.name for x in path.iterdir() if x.suffix in (".bin", ".pt", ".pth", ".ckpt"))
      raise UserError(f"{path}: " + (f"{pickles[0]} is a pickle, which is not read: convert it to safetensors" if pickles else
                                     "neither model.safetensors nor model.safetensors.index.json is in it"))
  shards = ["model.safetensors"] if where is None else sorted(set(where.values()))
  if missing := [name for name in shards if not (path / name).exists()]:
    raise UserError(f"{path}: the shard {missing[0]} is missing" + (f", and {len(missing) - 1} more" if len(missing) > 1 else ""))
  found = {}
  for name in shards:
    here = _shard(path / name)
    wanted = here.keys() if where is None else {tensor for tensor, shard in where.items() if shard == name}
    if wanted != here.keys():
      tensor = sorted(wanted ^ here.keys())[0]
      raise UserError(f"{path / name}: {tensor} is {'in' if tensor in here else 'not in'} it, and model.safetensors.index.json says otherwise")
    found |= here
  return found


def _shard(path: epath.Path) -> dict[str, names.Tensor]:
  try:
    # It checks every length against the file's before it allocates anything.
    file = safetensors.safe_open(os.fspath(path), framework="np")
    slices = {name: file.get_slice(name) for name in file.keys()}
    types = {name: x.get_dtype() for name, x in slices.items()}
    shapes = {name: tuple(x.get_shape()) for name, x in slices.items()}
  except (safetensors.SafetensorError, OSError) as error:
    raise UserError(f"{path} is not a whole safetensors file: {files_lib.reason(error)}") from error
  for name, kind in types.items():
    if kind not in _TYPES and not name.startswith(_OTHERS):
      raise UserError(f"{path}: {name} is of type {kind}, none of {', '.join(_TYPES)}")
  return {name: names.Tensor(shape, functools.partial(file.get_tensor, name)) for name, shape in shapes.items()}


def save(folder: epath.Path, config: dict, tensors: Iterator[tuple[str, np.ndarray]], sizes: dict[str, int]):
  """Writes config.json and safetensors, in shards of at most 2 GiB, which are in memory one at a time; sizes: bytes, in the order of tensors."""
  shards = [[]]
  for name, size in sizes.items():
    if shards[-1] and sum(sizes[x] for x in shards[-1]) + size > _SHARD:
      shards.append([])
    shards[-1].append(name)
  name_of = lambda i: "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
  for i, shard in enumerate(shards):
    some = {name: x for _, (name, x) in zip(shard, tensors)}
    files_lib.write(folder / name_of(i), safetensors.numpy.save(some, metadata={"format": "pt"}))
  if len(shards) > 1:
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": {name: name_of(i) for i, x in enumerate(shards) for name in x}}
    files_lib.write(folder / _INDEX, json.dumps(index, indent=1) + "\n")
  files_lib.write(folder / "config.json", json.dumps(config, indent=1) + "\n")
