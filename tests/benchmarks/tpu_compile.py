"""What the real TPU compiler makes of the rollout engine: bytes a chip, and what moves inside the decoding loop. No TPU is needed.

  python -m venv .venv-tpu; .venv-tpu/bin/pip install 'jax[tpu]==0.10.2' flax optax chex absl-py numpy
  JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 PYTHONPATH=. .venv-tpu/bin/python tests/benchmarks/tpu_compile.py \
    --size=gemma2_2b --topology=v5e:4x4

Compiles `engine.install` (prefill) and `engine.advance` (decode) for a slice;
fails when a gather inside the loop is as large as a layer's smallest matrix on
a chip: weights, or all logits, would be sent around at every token. The last line is JSON.
"""

import argparse
import dataclasses
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.experimental import topologies
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from pav_jax.models import architecture
from pav_jax.models import gemma
from pav_jax.models import network as network_lib
from pav_jax.rollouts import engine
from pav_jax.rollouts import sampling
from pav_jax.training import mesh as mesh_lib

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


def inside_loops(text: str) -> set[str]:
  """Names of the computations that run inside a while loop of this HLO text."""
  bodies, called, name = set(), {}, ""
  for line in text.splitlines():
    if opening := re.match(r"\s*(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line):
      name = opening.group(1)
      called[name] = set()
    called.setdefault(name, set()).update(re.findall(r"(?:calls|to_apply|body|condition|branch_computations)=\{?%?([\w.\-]+)", line))
    bodies.update(re.findall(r"body=%?([\w.\-]+)", line))
  inside, todo = set(), list(bodies)
  while todo:
    if (name := todo.pop()) not in inside:
      inside.add(name)
      todo += called.get(name, ())
  return inside


def collectives(text: str) -> list[dict]:
  """Every collective: its kind, the bytes of its result on a chip, whether it runs inside a loop."""
  loops, name, found = inside_loops(text), "", []
  for line in text.splitlines():
    if opening := re.match(r"\s*(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line):
      name = opening.group(1)
    if match := re.search(r"= (.*?) (" + "|".join(COLLECTIVES) + r")(?:-start)?\(", line):
      shapes = re.findall(r"(\w+)\[([\d,]*)\]", match.group(1))
      sizes = [BYTES[kind] * int(np.prod([int(x) for x in dims.split(",") if x] or [1])) for kind, dims in shapes if kind in BYTES]
      found.append({"kind": match.group(2), "bytes": max(sizes, default=0), "in_loop": name in loops})
  return found


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--size", default="gemma2_2b")
  parser.add_argument("--topology", default="v5e:4x4")
  parser.add_argument("--model", type=int, default=4, help="chips over which heads and feed-forward are cut")
  parser.add_argument("--rows", type=int, default=128, help="rows of each model group")
  parser.add_argument("--share", type=int, default=16, help="rows of a lane")
  parser.add_argument("--width", type=int, default=1024, help="tokens of a source")
  parser.add_argument("--slots", type=int, default=512, help="new tokens at most")
  options = parser.parse_args()
  devices = topologies.get_topology_desc(platform="tpu", topology_name=options.topology).devices
  data = len(devices) // options.model
  mesh = Mesh(mesh_utils.create_device_mesh((data, 1, options.model), devices, allow_split_physical_axes=True), mesh_lib.AXES)
  config = dataclasses.replace(gemma.SIZES[options.size], dtype="bfloat16", param_dtype="bfloat16")
  network = network_lib.from_gemma(config, scoring_id=4)
  shaped = lambda tree, layout: jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, layout)
  params = jax.eval_shape(network.init, jax.random.key(0))
  params = shaped(params, mesh_lib.shardings(params, mesh, architecture.SHARDING))
  lanes = data * options.rows // options.share
  state = jax.eval_shape(lambda params: engine.empty(
      network, params, lanes=lanes, rows=options.share, jobs=256, width=options.width, slots=options.slots), params)
  state = shaped(state, engine.layout(state, mesh))
  whole = NamedSharding(mesh, PartitionSpec())
  ids = lambda *shape, dtype=jnp.int32: jax.ShapeDtypeStruct(shape, dtype, sharding=whole)
  v = config.vocab_size
  tokens = engine.Tokens(ids(), ids(), *(ids(v, dtype=bool) for _ in range(3)))
  at_once = max(1, lanes // 8)
  work = jax.tree.map(lambda x: ids(at_once, *x.shape[1:], dtype=x.dtype), state.work)
  programs = {
      "prefill": engine.install.lower(network, params, state, ids(at_once), ids(at_once, options.width), work),
      "decode": engine.advance.lower(network, params, state, tokens, ids(), lines=64, sampling=sampling.Sampling())}
  found = {"size": options.size, "topology": options.topology, "chips": len(devices), "model": options.model,
           "rows": lanes * options.share, "width": options.width, "slots": options.slots, "programs": {}}
  smallest = config.width * config.num_kv_heads * config.head_width * 2 // options.model  # the keys' matrix, bfloat16
  for name, lowered in programs.items():
    start = time.perf_counter()
    compiled = lowered.compile()
    memory, moved = compiled.memory_analysis(), collectives(compiled.as_text())
    loop = [x for x in moved if x["in_loop"]]
    gathers = [x for x in loop if x["kind"] == "all-gather" and x["bytes"] >= smallest]
    found["programs"][name] = {
        "compile_s": time.perf_counter() - start,
        "arguments": memory.argument_size_in_bytes, "temporaries": memory.temp_size_in_bytes,
        "aliased": memory.alias_size_in_bytes, "outputs": memory.output_size_in_bytes,
        "gib": (memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
                - memory.alias_size_in_bytes) / 2**30,
        "collectives": len(moved), "in_loop": len(loop), "largest_in_loop": max((x["bytes"] for x in loop), default=0),
        "large_gathers_in_loop": len(gathers)}
    print(name, {k: round(x, 2) if isinstance(x, float) else x for k, x in found["programs"][name].items()}, flush=True)
    for x in sorted(loop, key=lambda x: -x["bytes"])[:8]:
      print("  in loop:", x, flush=True)
  print(json.dumps(found))
  if found["programs"]["decode"]["large_gathers_in_loop"]:
    raise SystemExit("error: something as large as weights is gathered inside the decoding loop")


if __name__ == "__main__":
  main()
