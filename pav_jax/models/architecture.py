"""From a config section to a network, and back from a checkpoint: what both must agree on."""

import dataclasses
import functools
import sys
from collections.abc import Callable

from etils import epath
import jax
from jax.sharding import PartitionSpec as P
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.models import gemma
from pav_jax.models import network as network_lib
from pav_jax.models import shares
from pav_jax.models import size
from pav_jax.models import weights
from pav_jax.models.formats import names
from pav_jax.training import checkpoint
from pav_jax.training import files
from pav_jax.training import hosts
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import state

# Parameters by path; optimiser moments mirror the parameters' paths. The layer axis stays whole, since the scan walks it.
SHARDING = (
    (r"embedding$", shares.EMBEDDING_CUT),
    *((f"/{name}$", P(None, *cut)) for name, cut in gemma.CUTS.items()),
    (r"scale$", P()),
)


# What a language model finds likely and nothing else does, whatever it was trained for.
SENTENCE = "The train leaves at nine and arrives at eleven, so the journey takes two hours. The capital of France is Paris."


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A network, the shape it was built from, and the vocabulary its ids are of; sentence: the ids of SENTENCE, with bos."""

  network: network_lib.Network
  config: gemma.GemmaConfig
  vocabulary_fingerprint: str
  scoring_id: int
  sentence: tuple[int, ...]
  rebuild: Callable[[gemma.GemmaConfig], network_lib.Network]

  @property
  def num_params(self) -> int:
    """Parameters, embedding included."""
    return sum(size.num_params(self.config))

  def shifted(self, shift: float) -> "Architecture":
    """The same, its scores read `shift` lower: what balanced training adds to the log-odds."""
    config = dataclasses.replace(self.config, score_shift=shift)
    return dataclasses.replace(self, config=config, network=self.rebuild(config))

  def silent(self, params):
    """The parameters with the scoring token's row at 0: every score is 0, wherever that token's logit happened to be, and can be learnt."""
    return params | {"embedding": jax.jit(lambda embedding_vd: embedding_vd.at[self.scoring_id].set(0))(params["embedding"])}

  def born(self, kind: str) -> dict:
    """What `training.fit` must know of a network: how it starts, is laid out, and describes itself; kind: as in `meta`."""
    return {"init": self.network.init, "patterns": SHARDING, "meta": self.meta(kind)}

  def meta(self, kind: str) -> dict:
    """What a checkpoint says of itself; kind: 'policy', or what a verifier says (orm, q, advantage)."""
    return {"kind": kind, "model": dataclasses.asdict(self.config), "vocabulary": self.vocabulary_fingerprint}


@functools.cache
def _network(config: gemma.GemmaConfig, scoring_id: int, logit_chunk: int) -> network_lib.Network:
  # Cached, because jit compiles anew for functions that are not the same object.
  return network_lib.from_gemma(config, scoring_id=scoring_id, logit_chunk=logit_chunk)


def build(section, vocabulary, start: str = "") -> Architecture:
  """The architecture that a config section (size, vocab_size, param_dtype, dtype, logit_chunk) asks for; start: as in `shape`.

  Raises UserError for an unknown size or type, or a vocabulary that does not fit.
  """
  config = shape(section, start)
  vocabulary.check_rows(config.vocab_size, published=is_foreign(start))
  return _architecture(config, section, vocabulary)


def shape(section, start: str = "") -> gemma.GemmaConfig:
  """The network's shape that a config section asks for; start: the checkpoint that it begins from, of ours or others.

  An empty size is what `start` says of itself, vocab_size with it. Raises
  UserError for an unknown size or type, and for weights of others that are of
  another shape.
  """
  for name in ("param_dtype", "dtype"):
    if section[name] not in ("float32", "bfloat16"):
      raise UserError(f"model {name} {section[name]!r} is neither float32 nor bfloat16")
  if section.size not in ("", *gemma.SIZES):
    raise UserError(f"model size {section.size!r} is none of {', '.join(gemma.SIZES)}; or empty, as the weights say that it begins from")
  if section.size:
    found = dataclasses.replace(gemma.SIZES[section.size], vocab_size=section.vocab_size)
    _check_agrees(found, start, section.size)
  elif not start:
    raise UserError(f"model size is empty, as the weights say that it begins from, and there are none: name one of {', '.join(gemma.SIZES)}")
  else:
    found = described(start)
  if is_foreign(start):
    names.check(weights.look(start, found), found)
  return dataclasses.replace(found, param_dtype=section.param_dtype, dtype=section.dtype, score_shift=0.0)


def described(path: str) -> gemma.GemmaConfig:
  """The shape that a checkpoint says it has."""
  if is_foreign(path):
    found = weights.look(path)
    if found.config is None:
      raise UserError(f"{path}: these weights do not say what they are, and are of no published size: name the model's size")
    return found.config
  try:
    return gemma.GemmaConfig(**checkpoint.read_meta(path)["model"])
  except (KeyError, TypeError) as error:
    raise UserError(f"checkpoint {path}: its description does not name a model: {error}") from error


def _check_agrees(config: gemma.GemmaConfig, path: str, size: str):
  """UserError where weights of others say that they are of another shape than the size that was named."""
  said = weights.look(path, config).config if is_foreign(path) else None
  if said is None:
    return
  own = ("param_dtype", "dtype", "score_shift")
  other = [f"{x.name} {getattr(said, x.name)} (not {getattr(config, x.name)})" for x in dataclasses.fields(config)
           if x.name not in own and getattr(said, x.name) != getattr(config, x.name)]
  if other:
    raise UserError(f"{path} is not of size {size} with these rows: it has {', '.join(other)}; with an empty size the network is what the files say")


def check(section, where: str, mesh_section, start: str = ""):
  """UserError for what means nothing in the section of a network to be trained, named `where`, or does not divide over the mesh.

  start: as in `shape`.
  """
  errors.at_least(1, section, where, "logit_chunk", *["vocab_size"] * bool(section.size))
  with errors.at(where):
    state.check_dtype(section.param_dtype)
    network = _network(shape(section, start), 0, section.logit_chunk)
    mesh_lib.shardings(jax.eval_shape(network.init, jax.random.key(0)), mesh_lib.make_mesh(**mesh_section), SHARDING)


def check_checkpoint(path: str, key: str, root: epath.Path | None):
  """UserError for a path that is no checkpoint; key: where the config names it; root: the workdir, in which it may yet be made."""
  if not path or root is not None and files.path(path).is_relative_to(root) and not files.exists(files.path(path)):
    return
  with errors.at(key):
    if is_foreign(path):
      weights.look(path)
    else:
      checkpoint.read_meta(path)


def _architecture(config: gemma.GemmaConfig, section, vocabulary) -> Architecture:
  rebuild = lambda config: _network(config, vocabulary.scoring_id, section.logit_chunk)
  sentence = (vocabulary.bos_id, *vocabulary.encode(SENTENCE))
  return Architecture(rebuild(config), config, vocabulary.fingerprint, vocabulary.scoring_id, sentence, rebuild)


def load(path: str, arch: Architecture, mesh):
  """Parameters of this architecture from a checkpoint of ours or weights of others; None for an empty path.

  Of the latter a line on stderr says how likely they find a sentence. Raises UserError for a wrong path, another architecture or vocabulary, a damaged file.
  """
  if not path:
    return None
  if is_foreign(path):
    found = weights.look(path, arch.config)
    params = weights.load(found, arch.config, mesh_lib.shardings(abstract(arch), mesh, SHARDING))
    _tell(found, arch, params)
    return params
  meta = checkpoint.read_meta(path)
  if meta["vocabulary"] != arch.vocabulary_fingerprint:
    raise UserError(f"checkpoint {path} was trained with another vocabulary "
                    f"({meta['vocabulary'][:12]}, here {arch.vocabulary_fingerprint[:12]})")
  return checkpoint.load_params(path, mesh_lib.abstract(abstract(arch), mesh, SHARDING))


def restore(path: str, section, vocabulary, mesh):
  """(architecture, parameters) of a checkpoint: ours says what it is, weights of others are what `section` and they say (`shape`)."""
  if is_foreign(path):
    arch = build(section, vocabulary, path)
    return arch, load(path, arch, mesh)
  config = described(path)
  vocabulary.check_rows(config.vocab_size)
  arch = _architecture(config, section, vocabulary)
  return arch, load(path, arch, mesh)


def kind_of(path: str) -> str:
  """Of which kind a checkpoint is (`Architecture.meta`); '' where it does not say, as none did in the beginning."""
  return "policy" if is_foreign(path) else checkpoint.read_meta(path).get("kind", "")


def is_foreign(path: str) -> bool:
  """Whether a path looks like weights of others rather than a checkpoint of ours; an empty one is neither."""
  return bool(path) and weights.is_foreign(path)


def _tell(found, arch: Architecture, params):
  """Says on stderr what was read, and how likely it finds SENTENCE; and so, where it finds it no likelier than chance."""
  token_bt = np.array([arch.sentence], np.int32)
  log_prob_bt = jax.jit(lambda params, token_bt: network_lib.token_log_probs(arch.network, params, token_bt))(params, token_bt)
  mean, chance = float(mesh_lib.fetch(log_prob_bt).mean()), -np.log(arch.config.vocab_size)
  if not hosts.first():
    return
  left_out = f"; {found.left_out} tensors of images left out" if found.left_out else ""
  print(f"weights {found.path} ({found.format}): {arch.num_params:,} parameters{left_out}; a sentence of English: {mean:.2f} a token, "
        f"chance {chance:.2f}", file=sys.stderr)
  if not mean > chance / 2:
    print(f"weights {found.path}: that is no language model of this vocabulary: random weights, another tokenizer, or a network that reads "
          "them in another way; only weights that never saw English may look so", file=sys.stderr)


def abstract(arch: Architecture):
  """The parameters' shapes and types."""
  return jax.eval_shape(arch.network.init, jax.random.key(0))
