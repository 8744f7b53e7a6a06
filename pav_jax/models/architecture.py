"""From a config section to a network, and back from a checkpoint: what both must agree on."""

import dataclasses
import functools
from collections.abc import Callable

from etils import epath
import jax
from jax.sharding import PartitionSpec as P

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.models import gemma
from pav_jax.models import network as network_lib
from pav_jax.models import shares
from pav_jax.models import size
from pav_jax.training import checkpoint
from pav_jax.training import files
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import state

# Parameters by path; optimiser moments mirror the parameters' paths. The layer axis stays whole, since the scan walks it.
SHARDING = (
    (r"embedding$", shares.EMBEDDING_CUT),
    *((f"/{name}$", P(None, *cut)) for name, cut in gemma.CUTS.items()),
    (r"scale$", P()),
)


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A network, the shape it was built from, and the vocabulary its ids are of."""

  network: network_lib.Network
  config: gemma.GemmaConfig
  vocabulary_fingerprint: str
  scoring_id: int
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


def build(section, vocabulary) -> Architecture:
  """The architecture that a config section (size, vocab_size, param_dtype, dtype, logit_chunk) asks for.

  Raises UserError for an unknown size or type, or a vocabulary that does not fit.
  """
  config = shape(section)
  vocabulary.check_rows(config.vocab_size)
  return _architecture(config, section, vocabulary)


def shape(section) -> gemma.GemmaConfig:
  """The network's shape that a config section asks for. Raises UserError for an unknown size or type."""
  if section.size not in gemma.SIZES:
    raise UserError(f"model size {section.size!r} is none of {', '.join(gemma.SIZES)}")
  for name in ("param_dtype", "dtype"):
    if section[name] not in ("float32", "bfloat16"):
      raise UserError(f"model {name} {section[name]!r} is neither float32 nor bfloat16")
  return dataclasses.replace(gemma.SIZES[section.size], vocab_size=section.vocab_size,
                             param_dtype=section.param_dtype, dtype=section.dtype)


def check(section, where: str, mesh_section):
  """UserError for what means nothing in the section of a network to be trained, named `where`, or does not divide over the mesh."""
  errors.at_least(1, section, where, "vocab_size", "logit_chunk")
  with errors.at(where):
    state.check_dtype(section.param_dtype)
    network = _network(shape(section), 0, section.logit_chunk)
    mesh_lib.shardings(jax.eval_shape(network.init, jax.random.key(0)), mesh_lib.make_mesh(**mesh_section), SHARDING)


def check_checkpoint(path: str, key: str, root: epath.Path | None):
  """UserError for a path that is no checkpoint; key: where the config names it; root: the workdir, in which it may yet be made."""
  if not path or root is not None and files.path(path).is_relative_to(root) and not files.exists(files.path(path)):
    return
  with errors.at(key):
    if not is_official(path):
      checkpoint.read_meta(path)


def _architecture(config: gemma.GemmaConfig, section, vocabulary) -> Architecture:
  rebuild = lambda config: _network(config, vocabulary.scoring_id, section.logit_chunk)
  return Architecture(rebuild(config), config, vocabulary.fingerprint, vocabulary.scoring_id, rebuild)


def load(path: str, arch: Architecture, mesh):
  """Parameters of this architecture from a checkpoint of ours or an official one; None for an empty path.

  Raises UserError for a wrong path, another architecture or vocabulary, a damaged file.
  """
  if not path:
    return None
  if is_official(path):
    # Only here: importing gemma takes seconds and needs packages that machines without it do without.
    from pav_jax.models import weights
    layout = mesh_lib.shardings(abstract(arch), mesh, SHARDING)
    return jax.tree.map(jax.device_put, weights.load_official(path, arch.config), layout)
  meta = checkpoint.read_meta(path)
  if meta["vocabulary"] != arch.vocabulary_fingerprint:
    raise UserError(f"checkpoint {path} was trained with another vocabulary "
                    f"({meta['vocabulary'][:12]}, here {arch.vocabulary_fingerprint[:12]})")
  return checkpoint.load_params(path, mesh_lib.abstract(abstract(arch), mesh, SHARDING))


def restore(path: str, section, vocabulary, mesh):
  """(architecture, parameters) of a checkpoint: ours says what it is, an official one is what `section` says."""
  if is_official(path):
    arch = build(section, vocabulary)
    return arch, load(path, arch, mesh)
  try:
    config = gemma.GemmaConfig(**checkpoint.read_meta(path)["model"])
  except (KeyError, TypeError) as error:
    raise UserError(f"checkpoint {path}: its description does not name a model: {error}") from error
  vocabulary.check_rows(config.vocab_size)
  arch = _architecture(config, section, vocabulary)
  return arch, load(path, arch, mesh)


def kind_of(path: str) -> str:
  """Of which kind a checkpoint is (`Architecture.meta`); '' where it does not say, as none did in the beginning."""
  return "policy" if is_official(path) else checkpoint.read_meta(path).get("kind", "")


def is_official(path: str) -> bool:
  """Whether a folder looks like a published Gemma checkpoint rather than one of ours."""
  folder = files.path(path)
  with files.told(folder, "read"):
    return (folder / "_METADATA").exists() and not (folder / "params").is_dir() and not (folder / "meta").is_dir()


def abstract(arch: Architecture):
  """The parameters' shapes and types."""
  return jax.eval_shape(arch.network.init, jax.random.key(0))
