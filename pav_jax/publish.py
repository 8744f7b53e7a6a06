"""A checkpoint as a folder that others load: Hugging Face's, for transformers and vLLM, or Gemma's official orbax.

  python -m pav_jax.publish CHECKPOINT --output=FOLDER [--format=orbax] [--dtype=bfloat16]

CHECKPOINT is one of ours or weights of others in any format that `init_from`
takes, so that a GGUF file becomes a folder, too. What is written:

  config.json, model*.safetensors    a policy: <Gemma>ForCausalLM
                                     a verifier: <Gemma>ForSequenceClassification with one label, the logit of the scoring token
                                     (score.weight is that token's row of the embedding), as reward-model servers take it
  tokenizer.model, tokenizer_config.json, generation_config.json

A verifier's chance is sigmoid(score): of the logit x that a server gives, score = cap tanh(x / cap) - shift, with cap and
shift under `pav_jax` in config.json (a cap of 0 is none): the order of two texts is that of x.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from collections.abc import Sequence

import ml_collections
import numpy as np

from pav_jax import console
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models import weights
from pav_jax.models.formats import huggingface
from pav_jax.models.formats import names
from pav_jax.problems import home as home_lib
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.training import files
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import metrics
from pav_jax.verifiers import targets

FORMATS = ("safetensors", "orbax")
_SPECIAL = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"}


def publish(checkpoint: str, output: str, *, format: str = "safetensors", dtype: str = "", vocabulary: str = "") -> dict:
  """Writes the folder; what was written, in words. dtype: '' is the one that the weights have here.

  UserError, before a weight is read, for what cannot be written or is there already.
  """
  folder = files.path(output)
  if files.exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
    raise UserError(f"--output={output} is there already: name a folder that is not")
  home = home_lib.of(checkpoint, vocabulary=vocabulary, prompt="{question}\n", steps="newline")
  kind = architecture.kind_of(checkpoint) or "policy"
  if kind == "implicit":
    raise UserError(f"checkpoint {checkpoint} is a verifier of kind implicit, two language models: publish the one, which is its policy, by itself")
  section = ml_collections.ConfigDict({"size": "", "vocab_size": 0, "param_dtype": dtype or "float32", "dtype": "float32", "logit_chunk": 128})
  if format == "safetensors":
    huggingface.check_written(architecture.described(checkpoint))
  arch, params = architecture.restore(checkpoint, section, home.vocabulary, mesh_lib.make_mesh(data=-1, fsdp=1, model=1))
  stored = np.dtype(dtype or arch.config.param_dtype)
  if format == "orbax":
    weights.save_official(folder, params, arch.config, stored)
  else:
    _safetensors(folder, arch, params, stored, kind, home.vocabulary)
  files.write(folder / "tokenizer.model", vocabulary_lib.model_of(home.vocabulary.path))
  return {"kind": kind, "parameters": arch.num_params, "dtype": str(stored)}


def _safetensors(folder, arch: architecture.Architecture, params, dtype: np.dtype, kind: str, vocabulary):
  config = arch.config
  shapes = {f"model.{name}": place.shape for name, place in names.places(config, huggingface.TABLE).items()}
  shapes |= {"score.weight": (1, config.width)} if kind in targets.KINDS else {}
  bar = metrics.progress(_tensors(arch, params, dtype, kind), what="publish", unit="tensor", total=len(shapes), delay=5)
  ids = {"pad": vocabulary.pad_id, "eos": vocabulary.eos_id, "bos": vocabulary.bos_id}
  said = huggingface.config_json(config, ids, str(dtype), score=kind in targets.KINDS)
  if kind in targets.KINDS:
    said["pav_jax"] = {"kind": kind, "cap": config.logit_cap, "shift": config.score_shift}
  huggingface.save(folder, said, iter(bar), {name: int(np.prod(shape)) * dtype.itemsize for name, shape in shapes.items()})
  tokens = {f"{name}_token": piece for name, piece in _SPECIAL.items()}
  # Without a piece for it transformers would add one, which has no row.
  mask = "<mask>" if vocabulary.holds("<mask>") else _SPECIAL["unk"]
  written = {"tokenizer_config.json": {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False, "mask_token": mask,
                                       "clean_up_tokenization_spaces": False, **tokens},
             "generation_config.json": {f"{name}_token_id": i for name, i in ids.items()}}
  for name, content in written.items():
    files.write(folder / name, json.dumps(content, indent=1) + "\n")


def _tensors(arch: architecture.Architecture, params, dtype: np.dtype, kind: str) -> Iterator[tuple[str, np.ndarray]]:
  for name, x in weights.theirs(params, arch.config, huggingface.TABLE):
    yield f"model.{name}", x.astype(dtype)
  if kind in targets.KINDS:
    yield "score.weight", np.asarray(params["embedding"][arch.scoring_id])[None].astype(dtype)


def main(arguments: Sequence[str] | None = None) -> int:
  """Returns 0, or 2 and one line on stderr for what the user can mend."""
  parser = argparse.ArgumentParser(prog="python -m pav_jax.publish", description="A checkpoint as a folder that others load.")
  parser.add_argument("checkpoint", help="WORKDIR/sft/best, WORKDIR/verifier/q/best, or weights of others")
  parser.add_argument("--output", required=True, help="a folder, which is made")
  parser.add_argument("--format", default="safetensors", choices=FORMATS, help="default: %(default)s")
  parser.add_argument("--dtype", default="", choices=("", "float32", "bfloat16"), help="default: the type that the weights have here")
  parser.add_argument("--vocabulary", default="", help="SentencePiece file; default: the run's, or that of the weights")
  flags = parser.parse_args(arguments)
  try:
    found = publish(**vars(flags))
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  what = "a policy" if found["kind"] == "policy" else f"a verifier of kind {found['kind']}"
  print(f"{flags.output}: {what}, {found['parameters']:,} parameters in {found['dtype']}")
  return 0


if __name__ == "__main__":
  sys.exit(console.quietly(main))
