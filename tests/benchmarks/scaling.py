"""Weak scaling on paper: what a chip sends in an update as the slice grows, rows a chip held fixed, by the TPU compiler.

  .venv-tpu/bin/python tests/benchmarks/scaling.py --results=tests/benchmarks/scaling.jsonl

docs/results/pods.md has its table. The 2B policy of the paper's config on v5p, its batches for 16 chips times the
chips / 16; the mesh has 4 for `model`, and what the slice adds goes to `fsdp`
or to `data`.
"""

import argparse
import json
import os
import pathlib
import sys

from pav_jax import main as main_lib

os.environ |= main_lib.COMPILER
sys.path.append(str(pathlib.Path(__file__).parents[2]))

from configs.paper import gemma2_2b_math
from pav_jax.pods import chips
from pav_jax.pods import compile as compile_lib
from pav_jax.pods import programs
from pav_jax.training import mesh as mesh_lib

SLICES = {16: "v5p:2x2x4", 64: "v5p:4x4x4", 256: "v5p:4x8x8", 1024: "v5p:8x8x16"}
UPDATES = {"sft": "sft: update", "rl": "rl: policy's update"}


def compiled(stage: str, count: int, grows: str) -> dict:
  config = gemma2_2b_math.get_config()
  for section in (config.sft, config.rl):
    section.batch_size *= count // 16
  mesh = mesh_lib.make_mesh(**{"data": 1, "fsdp": 4, "model": 4, grows: count // 16 * (4 if grows == "fsdp" else 1)},
                            devices=chips.devices(SLICES[count]))
  [program] = [x for x in programs.of_stage(stage, config, mesh) if x.name == UPDATES[stage]]
  return {"grows": grows, "chips": count, "topology": SLICES[count], "mesh": dict(mesh.shape)} | compile_lib.compiled(
      program, count, chips.chip(SLICES[count]))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--stages", default="sft,rl")
  parser.add_argument("--grows", default="fsdp,data")
  parser.add_argument("--chips", default=",".join(map(str, SLICES)))
  parser.add_argument("--results", default="", help="a file the JSON lines are appended to")
  options = parser.parse_args()
  for stage in options.stages.split(","):
    for grows in options.grows.split(","):
      for count in map(int, options.chips.split(",")):
        line = json.dumps(compiled(stage, count, grows))
        print(line, flush=True)
        if options.results:
          with open(options.results, "a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
  main()
