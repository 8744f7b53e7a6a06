"""Collectives read off a program's text: by hand, and of a program whose traffic is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from pav_jax.pods import hlo
from pav_jax.training import mesh as mesh_lib

TEXT = """HloModule m

%cond (p: (s32[], f32[8])) -> pred[] {
  %c = s32[]{:T(128)} constant(26)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %c), direction=LT
}

%dynamic (p: (s32[], f32[8])) -> pred[] {
  %i.2 = s32[] get-tuple-element(%p), index=0
  %n.2 = s32[] get-tuple-element(%p), index=1
  ROOT %lt.2 = pred[] compare(%i.2, %n.2), direction=LT
}

%inner (p: f32[8]) -> f32[8] {
  ROOT %g = f32[8,16]{1,0} all-gather(%p), replica_groups=[4,8]<=[32], dimensions={1}
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[8] call(%p), to_apply=%inner
  %w = (s32[], f32[8]) while(%t), condition=%dynamic, body=%body.2
}

%body.2 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %s = (bf16[4]{0}, bf16[8]{0}) all-reduce-start(%a, %b), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum
}

%all-reduce-scatter.1 (input: f32[32,8]) -> f32[32,4] {
  %r = f32[32,8] all-reduce(%input), replica_groups={{0,1},{2,3}}, to_apply=%sum
  ROOT %cut = f32[32,4] dynamic-slice(%r, %at), dynamic_slice_sizes={32,4}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%body
  %d = f32[10] all-to-all(%p), replica_groups=mesh['axis_0'=4,'axis_1'=2,'axis_2'=3] {'axis_0','axis_2'}
  %q = f32[5] collective-permute(%p), source_target_pairs={{0,1},{1,0}}
  %f = f32[32,4] fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_what_is_sent_by_hand():
  found = {x.kind: x for x in hlo.collectives(TEXT)}
  assert found["all-gather"] == hlo.Collective("all-gather", 8 * 16 * 4, 8, 26, True)
  assert found["all-reduce"] == hlo.Collective("all-reduce", (4 + 8) * 2, 4, 26, True)  # an inner loop of unknown length: once
  assert found["reduce-scatter"] == hlo.Collective("reduce-scatter", 32 * 8 * 4, 2, 1, False)
  assert found["all-to-all"] == hlo.Collective("all-to-all", 40, 12, 1, False)
  assert found["collective-permute"] == hlo.Collective("collective-permute", 20, 2, 1, False)
  assert found["all-gather"].sent == 26 * 512 * 7 / 8 and found["all-reduce"].sent == 26 * 24 * 2 * 3 / 4
  assert found["all-to-all"].sent == pytest.approx(40 * 11 / 12) and found["collective-permute"].sent == 20


@pytest.mark.parametrize("line, size", [
    ("= bf16[8,2]{1,0} reduce-scatter(%x), replica_groups={{0,1,2,3}}, dimensions={1}", 8 * 8 * 2),
    ("= (bf16[8,2], bf16[8,8]) all-gather-start(%x), replica_groups={{0,1,2,3}}, dimensions={1}", 8 * 8 * 2),
    ("= ((f32[2], f32[3]), (f32[8], f32[12])) all-gather-start(%x, %y), replica_groups={{0,1,2,3}}, dimensions={0}", (8 + 12) * 4),
    ("= (f32[5], f32[5], u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}", 20),
    ("= (f32[5], f32[7]) all-reduce(%x, %y), replica_groups={{0,1,2,3}}, to_apply=%sum", 48)])
def test_sizes_by_what_an_operation_gives(line, size):
  [found] = hlo.collectives(f"ENTRY %main (p: f32[8]) -> f32[8] {{\n  %a {line}\n}}\n")
  assert found.size == size


def test_what_is_sent_in_pieces_is_sent_once():
  piece = '%c.{0} (p: f32[8]) -> f32[8] {{\n  %g = f32[8]{{0}} all-gather(%p), replica_groups={{{{0,1}}}}, frontend_attributes={{chain_id="{1}"}}\n}}\n'
  calls = "\n".join(f"  %f.{i} = f32[8] fusion(%p), kind=kCustom, calls=%c.{i}" for i in range(4))
  text = "".join(piece.format(i, chain) for i, chain in enumerate("0010")) + f"ENTRY %main (p: f32[8]) -> f32[8] {{\n{calls}\n}}\n"
  assert [x.size for x in hlo.collectives(text)] == [32, 32]


@pytest.mark.skipif(jax.device_count() < 8, reason="run by test_on_eight_devices.py in a process of its own")
def test_a_loop_of_the_compilers():
  """Five sums over a cut axis, one in each turn of a scan, and nothing else."""
  parts = jax.device_count()
  mesh = mesh_lib.make_mesh(data=1, fsdp=1, model=parts)
  place = lambda *shape, spec: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
  def loop(x_bd, w_ydd):
    return jax.lax.scan(lambda x_bd, w_dd: (jnp.tanh(x_bd @ w_dd), None), x_bd, w_ydd)[0]
  text = jax.jit(loop, out_shardings=NamedSharding(mesh, P(None, "model"))).lower(
      place(4, 32, spec=P(None, "model")), place(5, 32, 32, spec=P(None, "model", None))).compile().as_text()
  inside = [x for x in hlo.collectives(text) if x.in_loop]
  assert sum(x.times for x in inside) == 5 and {x.group for x in inside} == {parts}
