"""--mode=compile: every program of a stage through the TPU compiler, for a slice that need not be there.

  1. The slice's devices come from its name (chips.py), the mesh from `config.mesh`.
  2. Each program is lowered as the stage would call it (programs.py) and compiled.
  3. A line for each: bytes a chip needs, with what lies there besides, against
     its memory; FLOPs and least bytes; what is sent around, in and outside of
     loops; the time that the roofline allows, and which of the three sets it.
  4. What does not fit is told with its largest arrays, and the exit status is not 0.

The figures are also written as JSON, a line a program.
"""

import ctypes
import gc
import json
import re
import sys
import time

from etils import epath
import jax

from pav_jax.errors import UserError
from pav_jax.pods import chips
from pav_jax.pods import hlo
from pav_jax.pods import programs
from pav_jax.training import files
from pav_jax.training import mesh as mesh_lib

_HEAD = (f"{'program':<38}{'GiB a chip':>11}{'+ besides':>10}{'of':>7}{'TFLOP':>9}{'least GB':>9}{'sent GB':>9}{'in loops':>9}"
         f"{'ms':>9}  bound")


def run(config, topology: str, workdir: epath.Path | None = None) -> list[dict]:
  """Compiles the stage's programs for the slice, prints the table, and returns its lines (appended to workdir/compile.jsonl, too).

  Raises UserError at the end where a program does not fit, or the config has no program to compile.
  """
  if workdir is not None:
    files.folder(workdir)
  chip, stages = chips.chip(topology), programs.stages(config)
  if not stages:
    raise UserError(f"--mode=compile: stage {config.stage} has no program for an accelerator")
  mesh = mesh_lib.make_mesh(**config.mesh, devices=chips.devices(topology))
  shape = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
  print("compiling takes up to two minutes a program", file=sys.stderr)
  print(f"{topology}: {mesh.size} chips of {chip.memory / 2**30:.2f} GiB, {shape}\n{_HEAD}", flush=True)
  found, over = [], []
  for stage in stages:
    for program in programs.of_stage(stage, config, mesh):
      line = {"config": config.policy.size, "topology": topology, "mesh": dict(mesh.shape), "stage": stage} | compiled(program, mesh.size, chip)
      print(row(line, chip), flush=True)
      found.append(line)
      if line["too_large"]:
        over.append(f"{program.name}: {line['too_large']}")
      if workdir is not None:
        files.append(workdir / "compile.jsonl", json.dumps(line) + "\n")
      _trim()
  if over:
    raise UserError(f"--topology={topology}: does not fit: " + "; ".join(over))
  return found


def _trim():
  """Gives the compiler's memory back to the machine: freed, it would stay with the process, program by program."""
  gc.collect()
  ctypes.CDLL(None).malloc_trim(0)  # of glibc, which libtpu needs


def compiled(program: programs.Program, count: int, chip: chips.Chip) -> dict:
  """What the compiler says of one program on `count` chips: bytes and seconds are a chip's, flops all chips'."""
  line = {"program": program.name, "flops": program.flops, "least_bytes": program.bytes, "too_large": "", "counted": dict(program.counted),
          "besides": {name: programs.bytes_on_a_chip(tree) for name, tree in program.resident.items()}}
  start = time.perf_counter()
  lowered = program.lower()
  try:
    executable = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return line | {"too_large": refusal(str(error), program.arguments)}
  memory, moved = executable.memory_analysis(), hlo.collectives(executable.as_text())
  need = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
  sent, looped = sum(x.sent for x in moved), sum(x.sent for x in moved if x.in_loop)
  seconds = {"FLOPs": program.flops / count / chip.flops, "memory": program.bytes / chip.bandwidth, "links": sent / chip.links}
  total = need + sum(line["besides"].values())
  if total > chip.memory:
    beside = sorted(line["besides"].items(), key=lambda x: -x[1])
    line["too_large"] = (f"{total / 2**30:.1f} GiB a chip: {need / 2**30:.1f} its own, beside it "
                         + ", ".join(f"{name} {size / 2**30:.1f}" for name, size in beside))
  kinds = {kind: sum(x.sent for x in moved if x.kind == kind) for kind in hlo.KINDS}
  return line | {
      "compile_s": time.perf_counter() - start, "need": need, "arguments": memory.argument_size_in_bytes,
      "temporaries": memory.temp_size_in_bytes, "total": total, "sent": sent, "sent_in_loops": looped, "collectives": kinds,
      "largest_in_loop": max((x.size for x in moved if x.in_loop), default=0),
      "seconds": seconds, "bound": max(seconds, key=seconds.get)}


def row(line: dict, chip: chips.Chip) -> str:
  """One line of the table."""
  start = f"{line['program']:<38}"
  if "need" not in line:
    return start + "does not fit"
  gib = lambda x: f"{x / 2**30:.2f}"
  return (start + f"{gib(line['need']):>11}{gib(line['total']):>10}{gib(chip.memory):>7}{line['flops'] / 1e12:>9.3g}"
          f"{line['least_bytes'] / 1e9:>9.3g}{line['sent'] / 1e9:>9.3g}{line['sent_in_loops'] / 1e9:>9.3g}"
          f"{1e3 * max(line['seconds'].values()):>9.3g}  {line['bound']}" + ("  DOES NOT FIT" if line["too_large"] else ""))


def refusal(message: str, lowered) -> str:
  """The compiler's refusal in one line: its own first line, the largest arrays it names, or else the program's largest arguments."""
  named = re.findall(r"Size: ([\d.]+\w)\s.*?Shape: (\S+?)[{\s]", message, re.S)
  arrays = [f"{shape} {size}" for size, shape in named]
  if not arrays:
    size = {f"{x.dtype}{list(x.sharding.shard_shape(x.shape))}": programs.bytes_on_a_chip(x) for x in jax.tree.leaves(lowered)}
    arrays = [f"{name} {size[name] / 2**30:.2f} GiB (an argument)" for name in sorted(size, key=size.get, reverse=True)]
  return f"{message.splitlines()[0].removeprefix('RESOURCE_EXHAUSTED: ')} The largest arrays a chip: {', '.join(arrays[:4])}"
