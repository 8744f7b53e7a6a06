"""The paper's configs on the slices they name: every program through the TPU compiler, and the table of docs/results/pods.md.

  make pods                        everything, some hours of one core
  make pods ONLY='2b rl v5e'       what has these words: a size, pipeline or rl, a stage, a chip, a slice
  make pods FLAGS=--missing        what compile.jsonl has no lines of

Each stage is `--mode=compile` in a process of its own; its lines take the
place of those that compile.jsonl had of it, and lines of what is not listed
here are dropped: the file holds what this command prints.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "tests/benchmarks/compile.jsonl"


class Run(NamedTuple):
  """A config of the paper, the pipeline or RL, a slice, its mesh, and flags besides; size: of its policy, `gemma2_` left out.

  A Gemma 3 takes the place of the 2B and its verifier in the 2B's config, by its flags.
  """

  size: str
  part: str
  topology: str
  fsdp: int
  model: int
  flags: tuple[str, ...] = ()

  def wrote(self, line: dict, stage: str = "") -> bool:
    """Whether the line is of this run, and of the stage if one is named; RL's first program is RFT's."""
    stages = (stage,) if stage else STAGES[self.part]
    mesh = {"data": 1, "fsdp": self.fsdp, "model": self.model}
    size = self.size if self.size.startswith("gemma") else f"gemma2_{self.size}"
    return ((line["config"], line["topology"], line["mesh"]) == (size, self.topology, mesh)
            and line["stage"].replace("rft", "rl") in stages)


STAGES = {"pipeline": ("sft", "rollouts", "values", "verifier", "search"), "rl": ("rl",)}


# A beam lies on one part of the mesh: how wide it may be there is a matter of the chip's memory and of `model`.
_UP_TO = lambda width: ("--config.search.widths=" + ",".join(str(2**n) for n in range(1, width.bit_length())),)
_GEMMA3 = lambda policy, verifier: tuple(f"--config.{at}.{key}" for at, size in (("policy", policy), ("verifier.model", verifier))
                                         for key in (f"size=gemma3_{size}", "vocab_size=262144"))
RUNS = (
    Run("2b", "pipeline", "v5e:4x4", 4, 4, (*_UP_TO(16), "--config.search.rows=192")),
    Run("2b", "pipeline", "v4:2x2x4", 4, 4, _UP_TO(64)),
    Run("2b", "pipeline", "v5p:2x2x4", 4, 4),
    Run("9b", "pipeline", "v5e:8x8", 16, 4, _UP_TO(16)),
    Run("9b", "pipeline", "v4:4x4x4", 16, 4, _UP_TO(64)),
    Run("9b", "pipeline", "v5p:2x2x4", 4, 4),
    Run("27b", "pipeline", "v5e:8x16", 16, 8, _UP_TO(32)),
    Run("27b", "pipeline", "v4:4x4x8", 16, 8, _UP_TO(64)),
    Run("27b", "pipeline", "v5p:4x4x4", 16, 4),
    Run("2b", "rl", "v5e:4x4", 4, 4),
    Run("2b", "rl", "v4:2x2x4", 4, 4),
    Run("2b", "rl", "v5p:2x2x4", 4, 4),
    Run("9b", "rl", "v5e:8x8", 16, 4),
    Run("9b", "rl", "v4:4x4x4", 16, 4),
    Run("9b", "rl", "v5p:2x2x4", 4, 4),
    Run("gemma3_1b", "pipeline", "v5e:4x4", 4, 4, (*_GEMMA3("1b", "4b"), *_UP_TO(16), "--config.search.rows=192")),
    Run("gemma3_1b", "pipeline", "v5p:2x2x4", 4, 4, _GEMMA3("1b", "4b")),
    Run("gemma3_4b", "pipeline", "v5e:8x8", 16, 4, (*_GEMMA3("4b", "12b"), *_UP_TO(16))),
    Run("gemma3_4b", "pipeline", "v5p:2x2x4", 4, 4, _GEMMA3("4b", "12b")),
    Run("gemma3_12b", "pipeline", "v5e:8x8", 16, 4, (*_GEMMA3("12b", "12b"), *_UP_TO(16))),
    Run("gemma3_12b", "pipeline", "v5p:2x2x4", 4, 4, _GEMMA3("12b", "12b")),
    Run("gemma3_1b", "rl", "v5e:4x4", 4, 4, _GEMMA3("1b", "4b")),
    Run("gemma3_1b", "rl", "v5p:2x2x4", 4, 4, _GEMMA3("1b", "4b")),
    Run("gemma3_4b", "rl", "v5e:8x8", 16, 4, _GEMMA3("4b", "12b")),
    Run("gemma3_4b", "rl", "v5p:2x2x4", 4, 4, _GEMMA3("4b", "12b")),
    Run("gemma3_12b", "rl", "v5e:8x8", 16, 4, _GEMMA3("12b", "12b")),
    Run("gemma3_12b", "rl", "v5p:2x2x4", 4, 4, _GEMMA3("12b", "12b")),
)


# What the status of a stage means. Lines of one that was cut short would pass for all of it.
_WRONG = {0: "", 2: "refused, see its error", -9: "killed, as by a machine out of memory (the compiler takes up to 20 GiB)"}


def lines() -> list[dict]:
  return [json.loads(x) for x in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def compile_stage(run: Run, stage: str) -> tuple[list[dict], str]:
  """(the stage's lines, none where it did not come to its end; what went wrong)."""
  with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run(
        [sys.executable, "-m", "pav_jax.main", "--mode=compile", f"--config=configs/paper/gemma2_{'2b' if run.size.startswith('gemma') else run.size}_math.py",
         f"--config.stage={stage}", f"--topology={run.topology}", "--config.mesh.data=1", f"--config.mesh.fsdp={run.fsdp}",
         f"--config.mesh.model={run.model}", f"--workdir={folder}", *run.flags],
        cwd=ROOT, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"})
    path = pathlib.Path(folder) / "compile.jsonl"
    whole = done.returncode in (0, 2) and path.exists()
    return [json.loads(x) for x in path.read_text().splitlines()] if whole else [], _WRONG.get(
        done.returncode, f"ended with status {done.returncode}")


def keep(run: Run, stage: str, found: list[dict]):
  """compile.jsonl with these lines in the place of the stage's."""
  old = lines()
  with RESULTS.open("w", encoding="utf-8") as file:
    for each in RUNS:
      for name in STAGES[each.part]:
        mine = found if (each, name) == (run, stage) else [x for x in old if each.wrote(x, name)]
        file.writelines(json.dumps(x) + "\n" for x in mine)


def table() -> str:
  """A line for each run: its largest program, and the times that the roofline allows."""
  text = ("| config, stage | slice | mesh | largest program, GiB a chip | by hand | SFT or policy's update | verifier's or value function's "
          "| a token of all rows | a beam's step | largest thing sent in the decoding loop |\n|" + "---|" * 10)
  three = lambda x: f"{float(f'{x:.3g}'):,g}"
  for run in RUNS:
    mine = [x for x in lines() if run.wrote(x)]
    if not mine:
      continue
    mine = [x for x in mine if "total" in x]  # the compiler gives no figures of what it refuses
    most, memory = max(mine, key=lambda x: x["total"]), {"v4": 30.75, "v5e": 15.75, "v5p": 95.74}[run.topology.partition(":")[0]]
    of = lambda word: [x for x in mine if word in x["program"]]
    time = lambda found: f"{three(1e3 * max(max(x['seconds'].values()) for x in found))} ms" if found else ""
    ratio = [x["temporaries"] / sum(v for name, v in x["counted"].items() if name != "state") for x in mine if x["counted"]]
    sent = max((x["largest_in_loop"] for x in of("token of")), default=0)
    cells = (f"{run.size.upper()} {run.part}", run.topology, f"{run.fsdp} × {run.model}",
             f"{most['total'] / 2**30:.1f} of {memory} ({most['program']})", f"{min(ratio):.2f}–{max(ratio):.2f}" if ratio else "",
             time(of("sft: update") or of("policy")), time(of("verifier ") or of("value function")), time(of("token of")),
             time(of("step of")), f"{sent / 1e6:.2f} MB" if sent else "")
    text += "\n| " + " | ".join(cells) + " |"
  return text


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--only", default="", help="words of what to compile, as '27b' or 'rl v5p'")
  parser.add_argument("--missing", action="store_true", help="only what has no lines yet")
  options = parser.parse_args()
  failed = []
  for run in RUNS:
    for stage in STAGES[run.part]:
      words = (run.size, run.part, stage, run.topology, run.topology.partition(":")[0])
      if set(options.only.split()) <= set(words) and not (options.missing and any(run.wrote(x, stage) for x in lines())):
        found, wrong = compile_stage(run, stage)
        if found:
          keep(run, stage, found)
        failed += [f"{' '.join(words[:4])}: {wrong}"] if wrong else []
  print(table())
  if failed:
    raise SystemExit("error: " + "; ".join(failed))


if __name__ == "__main__":
  main()
