"""The mesh, and from path patterns to shardings; a leaf that matches no pattern is an error."""

import re
from collections.abc import Callable
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from pav_jax.errors import UserError

AXES = ("data", "fsdp", "model")
# Rows of a batch are cut over both data and fsdp; parameters over fsdp and model.
ROWS = PartitionSpec(("data", "fsdp"))

Patterns = Sequence[tuple[str, PartitionSpec]]


def make_mesh(*, data: int, fsdp: int, model: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh over these devices (None: all); data = -1 takes what the other axes leave.

  Raises UserError when the axes do not multiply to the number of devices.
  """
  data, fsdp, model = _axes(jax.device_count() if devices is None else len(devices), data, fsdp, model)
  # jax.make_mesh refuses 4 for model on v5p:8x8x16, where no axis of the slice is 4 long.
  placed = mesh_utils.create_device_mesh((data, fsdp, model), jax.devices() if devices is None else devices, allow_split_physical_axes=True)
  # Auto axes: the compiler propagates; explicit ones would demand annotations everywhere.
  return Mesh(placed, AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3)


def parts_of(section) -> int:
  """`num_parts` of the mesh that a config's `mesh` section asks for, on the devices there are; UserError as of `make_mesh`."""
  data, fsdp, _ = _axes(jax.device_count(), **section)
  return data * fsdp


def _axes(count: int, data: int, fsdp: int, model: int) -> tuple[int, int, int]:
  if data == -1 and fsdp > 0 and model > 0:
    data = count // (fsdp * model)
  if min(data, fsdp, model) < 1 or data * fsdp * model != count:
    raise UserError(f"config.mesh: data={data} x fsdp={fsdp} x model={model} is not the {count} devices there are")
  return data, fsdp, model


def shardings(tree, mesh: Mesh, patterns: Patterns):
  """A NamedSharding per leaf: the first pattern found (re.search) in its path decides, `cut_of` a leaf's axes of length 1.

  tree: arrays or ShapeDtypeStructs. Scalars and random keys are replicated.
  Raises UserError for a leaf without a pattern or a size its axes do not divide.
  """
  def one(path, leaf):
    if leaf.ndim == 0:
      return NamedSharding(mesh, PartitionSpec())
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    spec = next((spec for pattern, spec in patterns if re.search(pattern, name)), None)
    if spec is None:
      raise UserError(f"sharding: no pattern matches {name} {leaf.shape}")
    spec = cut_of(leaf.shape, spec)
    for size, axes in zip(leaf.shape, spec):
      parts = np.prod([mesh.shape[axis] for axis in ([axes] if isinstance(axes, str) else axes or [])])
      if size % parts:
        raise UserError(f"sharding: {name} {leaf.shape}: {size} rows do not divide over {axes} = {parts:.0f} devices")
    return NamedSharding(mesh, spec)
  return jax.tree_util.tree_map_with_path(one, tree)


def cut_of(shape: Sequence[int], spec: PartitionSpec) -> PartitionSpec:
  """The spec, axes of length 1 left whole: one head of keys and values lies on every chip of its model group."""
  return PartitionSpec(*(None if size == 1 else axes for size, axes in zip(shape, spec)), *spec[len(shape):])


def abstract(tree, mesh: Mesh, patterns: Patterns):
  """The tree as ShapeDtypeStructs that lie where the patterns say: what a checkpoint is restored to, a program compiled for."""
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings(tree, mesh, patterns))


def on(mesh: Mesh, function: Callable) -> Callable:
  """The function, traced for this mesh: `models/shares.py` means its axes. For what is jitted to read whole rows."""
  def traced(*args, **kwargs):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args, **kwargs)
  return traced


def num_parts(mesh: Mesh | None) -> int:
  """Groups of devices that each hold rows of their own; 1 without a mesh."""
  return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def by_part(mesh: Mesh | None, function: Callable, params, *rows):
  """function(params, *rows) on every part by itself, which sees its own rows of each array and nothing of another's.

  params: the same for all parts, cut over model alone. rows: trees of arrays
  whose first axis is cut over the parts; scalars are everybody's. So is what
  comes back. Without a mesh, the function itself.
  """
  if mesh is None:
    return function(params, *rows)
  spec = lambda tree: jax.tree.map(lambda x: ROWS if x.ndim else PartitionSpec(), tree)
  out = jax.eval_shape(function, params, *rows)
  whole = jax.tree.map(lambda _: PartitionSpec(), params)
  # The compiler cannot see that what is computed from scalars is the same everywhere.
  return jax.shard_map(function, mesh=mesh, in_specs=(whole, *map(spec, rows)), out_specs=spec(out), axis_names={"data", "fsdp"},
                       check_vma=False)(params, *rows)


def put_rows(batch, mesh: Mesh):
  """Host arrays as global ones, rows cut over data and fsdp; every process has the whole batch, and puts what its devices hold."""
  return jax.tree.map(
      lambda x: jax.make_array_from_callback(x.shape, NamedSharding(mesh, ROWS), lambda part, x=np.asarray(x): x[part]), batch)


def fetch(tree):
  """Host copies of arrays on a mesh, whole on every process. Several processes must all call it."""
  far = [not x.is_fully_addressable for x in jax.tree.leaves(tree)]
  return multihost_utils.process_allgather(tree, tiled=True) if any(far) else jax.device_get(tree)


def over_model_alone(tree):
  """The same arrays, whole over data and fsdp, cut over model as they were; what is on no mesh stays as it is.

  Decoding reads every weight at every step: cut over fsdp, each would be gathered each time.
  """
  return jax.tree.map(lambda leaf: jax.device_put(leaf, _over_model(leaf.sharding)) if _on_mesh(leaf) else leaf, tree)


def abstract_over_model_alone(tree):
  """`over_model_alone` of ShapeDtypeStructs."""
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_over_model(leaf.sharding)), tree)


def _on_mesh(leaf) -> bool:
  return isinstance(getattr(leaf, "sharding", None), NamedSharding)


def _over_model(sharding: NamedSharding) -> NamedSharding:
  return NamedSharding(sharding.mesh, PartitionSpec(*(axes if axes == "model" else None for axes in sharding.spec)))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())
