"""How chips share a layer in training, what one sends to another written out; without a mesh the plain function.

Rows lie over data and fsdp. What is kept between layers has its tokens over
model, too; within one every chip has all tokens of its rows and some of the
heads. The compiler, told only where things lie, sends more and keeps more.
"""

from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from pav_jax.training import mesh as mesh_lib

EMBEDDING_CUT = P("model", "fsdp")  # vocabulary and widths; layers' cuts are gemma.CUTS


def constrain_rows(x):
  """Rows over data and fsdp, the rest whole or as the compiler likes; as it is where no mesh is traced for.

  Left alone, the compiler takes the cut of the weights over fsdp for one of
  the activations' widths, and every chip computes every row.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.manual_axes:  # in `by_part` a part's rows are all there are
    return x
  free = [P.UNCONSTRAINED] * (x.ndim - 1)
  return jax.lax.with_sharding_constraint(x, P(*mesh_lib.ROWS, *free))


def _spread(x_btd) -> bool:
  """Whether a layer is shared: weights are cut, and rows and their tokens divide over the mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.manual_axes or mesh.shape["fsdp"] * mesh.shape["model"] == 1:
    return False
  return not (x_btd.shape[0] % mesh_lib.num_parts(mesh) or x_btd.shape[1] % mesh.shape["model"])


def gathered(x, axis: int):
  """The whole of what is cut over fsdp along the axis, inside a shard_map; its gradient is summed and cut again.

  Pieces arrive along an axis of their own and are put side by side here: where
  the last axis is the one that is cut, the TPU's compiler would sum the
  gradient whole on every chip.
  """
  if axis < x.ndim - 1:
    return jax.lax.all_gather(x, "fsdp", axis=axis, tiled=True)
  whole = jnp.moveaxis(jax.lax.all_gather(x, "fsdp"), 0, axis)
  return whole.reshape(*x.shape[:axis], -1, *x.shape[axis + 1:])


def in_shares(function: Callable, x_btd, weights, cuts: Sequence[P], *rows):
  """function(x_btd, *weights, *rows) -> (y_btd, aside) on every chip's share of what is cut over model; the sum of the shares' y_btd.

  x_btd and y_btd have rows over data and fsdp, tokens over model. A chip
  gathers the weights over fsdp and its rows' tokens over model, and of the sum
  keeps its own tokens: as much is sent as for sums of all that all then keep.
  cuts: of each weight, over fsdp and model. rows: arrays (b, ...); scalars are
  everybody's. aside: a tree of arrays (b, heads, ...); a weight's axis of
  length 1 is whole everywhere, so of one head each chip of a model group gives
  the same, one after the other. Where rows or tokens do not divide, the
  function itself, and the compiler cuts it.
  """
  if not _spread(x_btd):
    return function(x_btd, *weights, *rows)
  cuts = [mesh_lib.cut_of(w.shape, cut) for w, cut in zip(weights, cuts)]
  def share(x_btd, *rest):
    whole = [gathered(w, cut.index("fsdp")) if "fsdp" in cut else w for w, cut in zip(rest, cuts)]
    all_btd = jax.lax.all_gather(x_btd, "model", axis=1, tiled=True)
    y_btd, aside = function(all_btd, *whole, *rest[len(cuts):])
    return jax.lax.psum_scatter(y_btd, "model", scatter_dimension=1, tiled=True), aside
  over = P(*mesh_lib.ROWS, "model")  # of tokens, and of heads
  return jax.shard_map(share, in_specs=(over, *cuts, *[mesh_lib.ROWS if x.ndim else P() for x in rows]), out_specs=(over, over))(
      x_btd, *weights, *rows)


def looked_up(table_vd, token_bt, dtype):
  """table_vd[token_bt] in dtype, (b, t, d) with rows over data and fsdp, tokens over model, of a table cut over model and fsdp.

  Each chip looks up what it holds, widths of its own of its model group's
  rows, so that the table's gradient is added where it lies: left to the
  compiler, every chip makes all widths of it, and sums them.
  """
  if not _spread(token_bt):
    return table_vd[token_bt].astype(dtype)
  def own(table_vd, token_bt):
    token_bt = jax.lax.all_gather(token_bt, "fsdp", axis=0, tiled=True)
    at_bt = token_bt - jax.lax.axis_index("model") * len(table_vd)
    here_bt1 = ((at_bt >= 0) & (at_bt < len(table_vd)))[..., None]
    found_btd = jnp.where(here_bt1, table_vd[jnp.clip(at_bt, 0, len(table_vd) - 1)].astype(dtype), 0)
    found_btd = jax.lax.psum_scatter(found_btd, "model", scatter_dimension=1, tiled=True)  # exact: one chip's is not 0
    return jax.lax.all_to_all(found_btd, "fsdp", split_axis=0, concat_axis=2, tiled=True)
  return jax.shard_map(own, in_specs=(EMBEDDING_CUT, mesh_lib.ROWS), out_specs=P(*mesh_lib.ROWS, "model"))(table_vd, token_bt)
