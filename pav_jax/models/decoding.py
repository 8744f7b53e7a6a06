"""The cache: begun on a prefix, restarted, committed. Growing it is the network's `extend`.

A trajectory is read once; whatever goes on from it, from wherever it is cut,
attends to that one copy: n rollouts of a prompt, the continuations of every
prefix of a response, the candidates of a beam's item.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Prefix(NamedTuple):
  """Keys and values of whole rows, read once; slot l holds the token at position l.

  keys_ywigel, values_ywigle: for each layer arrays (sources, kv heads, head
  width, slots), of values (..., slots, head width): the order in which they
  are multiplied, which makes small products several times faster. Layers are
  not stacked: a product reads an array where it lies, a layer of a stack it
  would copy first. For the same reason a local layer that reaches back less
  far than there are slots has them in w blocks (`in_blocks`), of which it
  reads those that some row reaches; any other layer has one.
  """

  keys_ywigel: tuple[tuple[jax.Array, ...], ...]
  values_ywigle: tuple[tuple[jax.Array, ...], ...]

  @property
  def sources(self) -> int:
    """How many rows there are."""
    return len(self.keys_ywigel[0][0])

  @property
  def slots(self) -> int:
    """How many tokens of a row there is room for."""
    return _length(self.keys_ywigel[0], 3)


class Cache(NamedTuple):
  """What rows attend to: the prefix of their source, stored once for all of its rows, and a suffix of their own.

  Row b = source i * r + r-th row of it. It sees the first cut_b slots of its
  source's prefix, and those slots of its suffix whose position_bl is not -1.
  keys_ywbgel, values_ywbgle: the suffixes, for each layer as in a prefix, in w
  blocks of equal length; those in which no row has a token are not read. All
  rows write the same slot at the same time, number `clock` modulo the slots,
  so that writing is one contiguous update and no scatter; a row that has
  nothing to write leaves -1 there. A token is overwritten when as many slots
  as there are have been written after it: who extends sees to it that a row's
  own are not. length_b: tokens a row has read, prefix included: the position
  of its next one.
  """

  prefix: Prefix
  cut_b: jax.Array
  keys_ywbgel: tuple[jax.Array, ...]
  values_ywbgle: tuple[jax.Array, ...]
  position_bl: jax.Array
  clock: jax.Array
  length_b: jax.Array


class Reach(NamedTuple):
  """What layers of one kind see, global or local: which slots of prefix and suffix; which blocks of each anyone sees."""

  seen_btl: jax.Array
  prefix_w: tuple[jax.Array, ...]
  suffix_w: tuple[jax.Array, ...]


class View(NamedTuple):
  """What all layers of one call share: what global and local layers see; where to write."""

  everywhere: Reach
  near: Reach
  slot_t: jax.Array

  def write(self, x_w, new, axis: int):
    """The blocks of the suffixes with the new tokens in their slots along the axis."""
    length, times = x_w[0].shape[axis], len(self.slot_t)
    if times > 1:
      return self._write_many(x_w, new, axis)
    def into(x, first):
      # Contiguous and in place; where the slot is another block's, what was there is written again.
      slot = self.slot_t[0] - first
      at = jnp.clip(slot, 0, length - 1)
      old = jax.lax.dynamic_slice_in_dim(x, at, 1, axis)
      return jax.lax.dynamic_update_slice_in_dim(x, jnp.where(at == slot, new, old), at, axis)
    return tuple(into(x, w * length) for w, x in enumerate(x_w))

  def _write_many(self, x_w, new, axis: int):
    # Turned to where they belong, all slots at once: a scatter along the last axis takes a TPU's compiler minutes.
    times, slots = len(self.slot_t), len(x_w) * x_w[0].shape[axis]
    widths = [(0, slots - times if a == axis else 0) for a in range(new.ndim)]
    turned_w = jnp.split(jnp.roll(jnp.pad(new, widths), self.slot_t[0], axis), len(x_w), axis)
    if times == slots:
      return tuple(turned_w)
    written_l = (jnp.arange(slots) - self.slot_t[0]) % slots < times
    written_w = jnp.split(jnp.expand_dims(written_l, [a for a in range(new.ndim) if a != axis]), len(x_w), axis)
    return tuple(jnp.where(*three) for three in zip(written_w, turned_w, x_w))


class Past(NamedTuple):
  """A layer's part of a cache: blocks of keys and of values of the prefixes and of the suffixes."""

  prefix: tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]
  suffix: tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]
  view: View


def look(cache: Cache, position_bt, valid_bt, window: int) -> tuple[View, Cache]:
  """The view of the cache with these tokens appended, and the cache's book-keeping after them; layer 0 is a local one."""
  slots, times = cache.position_bl.shape[1], position_bt.shape[1]
  if times > slots:
    raise ValueError(f"{times} tokens at once do not fit into a suffix of {slots} slots")
  slot_t = (cache.clock + jnp.arange(times)) % slots
  position_bl = cache.position_bl.at[:, slot_t].set(jnp.where(valid_bt, position_bt, -1))
  width = cache.prefix.slots
  prefix_bl = jnp.broadcast_to(jnp.arange(width), (len(position_bl), width))
  there_bl = jnp.concatenate([prefix_bl < cache.cut_b[:, None], position_bl >= 0], axis=1)
  at_bl = jnp.concatenate([prefix_bl, position_bl], axis=1)
  seen_btl = there_bl[:, None, :] & (at_bl[:, None, :] <= position_bt[:, :, None])
  grown = cache._replace(position_bl=position_bl, clock=cache.clock + times,
                         length_b=cache.length_b + valid_bt.sum(axis=1, dtype=jnp.int32))
  def reach(seen_btl):
    needed_l = (seen_btl & valid_bt[:, :, None]).any(axis=(0, 1))
    cuts = [block.stop for blocks in (spans(cache.prefix.keys_ywigel[0], 3), spans(cache.keys_ywbgel[0], 3, width)) for block in blocks]
    found = tuple(some_l.any() for some_l in jnp.split(needed_l, cuts[:-1]))
    blocks = len(cache.prefix.keys_ywigel[0])
    return Reach(seen_btl, found[:blocks], found[blocks:])
  if width + slots <= window:  # no row is longer: a local layer sees everything
    return View(*[reach(seen_btl)] * 2, slot_t), grown
  near_btl = seen_btl & (position_bt[:, :, None] - at_bl[:, None, :] < window)
  return View(reach(seen_btl), reach(near_btl), slot_t), grown


def take(prefix: Prefix, source_i: jax.Array) -> Prefix:
  """The prefixes of the sources source_i, copied."""
  return jax.tree.map(lambda x_igle: jnp.take(x_igle, source_i, axis=0), prefix)


def put(prefix: Prefix, source_i: jax.Array, new: Prefix) -> Prefix:
  """The prefixes with `new`, which may be shorter, in the places source_i; a place that is not there is skipped."""
  if new.slots > prefix.slots:
    raise ValueError(f"{new.slots} tokens of a prefix do not fit into {prefix.slots} slots")
  def place(old_w, new_w, axis):
    whole, placed = jnp.concatenate(new_w, axis), []
    for old, span in zip(old_w, spans(old_w, axis)):
      some = jax.lax.slice_in_dim(whole, *span.indices(whole.shape[axis])[:2], axis=axis)
      placed.append(old.at[source_i, :, :some.shape[2], :some.shape[3]].set(some, mode="drop"))
    return tuple(placed)
  return Prefix(tuple(place(*two, 3) for two in zip(prefix.keys_ywigel, new.keys_ywigel)),
                tuple(place(*two, 2) for two in zip(prefix.values_ywigle, new.values_ywigle)))


def _length(x_w, axis: int) -> int:
  return sum(x.shape[axis] for x in x_w)


def spans(x_w, axis: int, start: int = 0) -> list[slice]:
  """Which slots each of the blocks holds, the first of them being `start`."""
  ends = [start + _length(x_w[:w + 1], axis) for w in range(len(x_w))]
  return [slice(end - x.shape[axis], end) for end, x in zip(ends, x_w)]


def in_blocks(x, axis: int) -> tuple[jax.Array, ...]:
  """An array in `blocks_of` its slots, which lie along the axis; the last may be shorter."""
  slots = x.shape[axis]
  length = -(-slots // blocks_of(slots))
  return tuple(jax.lax.slice_in_dim(x, start, min(start + length, slots), axis=axis) for start in range(0, slots, length))


def blocks_of(slots: int) -> int:
  """How many blocks slots fall into: a block nobody needs is not read.

  At most eight, since each is a branch of every layer; of 128 slots where
  there are enough of them, a TPU's tile, and of 32 at least.
  """
  return max(1, min(8, slots // (128 if slots >= 256 else 32)))


def begin(prefix: Prefix, cut_b: jax.Array, slots: int) -> Cache:
  """A cache whose row b holds the first cut_b tokens of its source, and has at least `slots` slots for its own.

  The rows of a source stand together: b is a multiple of the sources.
  """
  sources, rows = prefix.sources, len(cut_b)
  if rows % sources:
    raise ValueError(f"{rows} rows cannot share {sources} sources evenly")
  blocks = blocks_of(slots)
  length = -(-slots // blocks)
  def blank(x, axis):
    return tuple(jnp.zeros((rows, *x.shape[1:axis], length, *x.shape[axis + 1:]), x.dtype) for _ in range(blocks))
  length_b = cut_b.astype(jnp.int32)
  return Cache(prefix, length_b, tuple(blank(x_wigel[0], 3) for x_wigel in prefix.keys_ywigel),
               tuple(blank(x_wigle[0], 2) for x_wigle in prefix.values_ywigle),
               jnp.full((rows, blocks * length), -1, jnp.int32), jnp.int32(0), length_b)


def restart(cache: Cache, fresh_b: jax.Array, cut_b: jax.Array) -> Cache:
  """The same cache, rows fresh_b begun anew at the first cut_b tokens of their source."""
  pick = lambda new_b, old_b: jnp.where(fresh_b, new_b, old_b)
  return cache._replace(cut_b=pick(cut_b, cache.cut_b), length_b=pick(cut_b, cache.length_b),
                        position_bl=jnp.where(fresh_b[:, None], -1, cache.position_bl))


def commit(cache: Cache, row_i: jax.Array) -> Prefix:
  """Prefixes made of rows: what row_i has read, its source's prefix up to its cut and its own suffix after it.

  The prefix must have slots for the longest row. This is how a chosen candidate becomes an item of the beam.
  """
  source_i = row_i // (len(cache.cut_b) // cache.prefix.sources)
  # For every slot of the prefix, which slot of the suffix holds that position, if one does.
  here_ill = cache.position_bl[row_i][:, :, None] == jnp.arange(cache.prefix.slots)
  own_il, from_il = here_ill.any(axis=1), here_ill.argmax(axis=1)
  def join(old_w, own_w, axis):
    own = jnp.concatenate(own_w, axis)[row_i]
    lined = lambda x_il: x_il[:, None, None, :] if axis == 3 else x_il[:, None, :, None]
    def block(old, span):
      return jnp.where(lined(own_il[:, span]), jnp.take_along_axis(own, lined(from_il[:, span]), axis=axis), old[source_i])
    return tuple(block(*two) for two in zip(old_w, spans(old_w, axis)))
  return Prefix(tuple(join(*two, 3) for two in zip(cache.prefix.keys_ywigel, cache.keys_ywbgel)),
                tuple(join(*two, 2) for two in zip(cache.prefix.values_ywigle, cache.values_ywbgle)))
