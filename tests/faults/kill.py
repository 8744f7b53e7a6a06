"""Kills every stage with SIGKILL at random moments, starts it again, and compares what it leaves with a run that nothing disturbed.

  python tests/faults/kill.py --kills=20 --seed=0 --results=tests/faults/kills.jsonl
  python tests/faults/kill.py --hosts=2 --kills=10 --results=tests/faults/kills.jsonl

  1. Everything is imported once, and every attempt is a fork: start-up takes longer than the stages of this configuration.
  2. The stages run once, one after another, undisturbed; how long each takes and how often it touches its folders is noted.
  3. A stage starts where the undisturbed run had come to before it. It is killed at a random moment, or at a random one of
     its writes, half of the time a few milliseconds after it; started again, killed again, until it ends by itself. Then all
     it has left is compared, its folders are removed, and it starts anew, until it has been killed often enough.
  4. Equal are: arrays, counts and facts of records; parameters and optimisers of every checkpoint, bit for bit; curves but for
     their seconds; reports and figures; and that nothing else is left behind, no process either.
  5. With --hosts a stage runs on several processes of two devices each. A random one is killed; the others must end by
     themselves, with status 1, or 0 where they had done all of it.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

# Folders that a stage makes; rl goes on from rft, which is a stage here.
FOLDERS = {"problems": ("problems", "tfds"), "sft": ("sft",), "rollouts": ("rollouts",), "values": ("values",),
           "verifier": ("verifier",), "search": ("search",), "report": ("report",), "rft": ("rft",), "rl": ("rl", "rl_report")}
CHANGES = {
    "arithmetic.dials.min_length": 1, "arithmetic.dials.max_length": 1, "arithmetic.dials.modulus": 3,
    "arithmetic.dials.lure": 0.0, "arithmetic.dials.lured": 0.0, "arithmetic.train_size": 60, "problems.problems_per_shard": 12,
    "problems.max_prompt": 40, "problems.max_solution": 24, "grading.workers": 1, "verifier.kinds": ("orm", "q"),
    "sft.num_steps": 30, "sft.batch_size": 16, "sft.eval_every": 5, "sft.save_every": 5, "sft.warmup_steps": 5, "sft.peak_lr": 1e-2,
    "rollouts.num_problems": 24, "rollouts.problems_per_shard": 3, "monte_carlo.responses_per_shard": 8,
    "search.num_seeds": 2, "search.widths": (1,), "rft.num_steps": 12, "rft.batch_size": 4, "rft.eval_every": 3, "rft.save_every": 2, "rft.warmup_steps": 1,
    "rft.log_every": 1, "rft.valid_fraction": 0.3,
    **{f"rl.{name}": x for name, x in {
        "num_steps": 6, "batch_size": 2, "warmup_steps": 1, "eval_every": 2, "save_every": 2, "group": 2, "rows": 4, "share": 2,
        "eval_problems": 4, "eval_n": 2, "test_problems": 3, "eval_samples": 2, "value_warmup": 2, "baseline": "value",
        "arms": ("progress",), "watch.responses": 8, "watch.share": 0.05, "watch.factor": 1.05, "watch.kl": 1e-4}.items()}}
# A host that was killed is missed after 30 seconds; if that was the first one, before the others had joined it, they wait five minutes.
LAST_S = 360
LONGEST_S = 900


@dataclasses.dataclass
class Undisturbed:
  """What the run that nothing disturbed says of a stage, of one host: seconds to its first write and in all, how many writes."""

  first_s: float
  seconds: float
  writes: int


@dataclasses.dataclass
class Aim:
  """When an attempt ends: after so many seconds, or at this write and so many seconds later; by the death of which host."""

  host: int = 0
  after_s: float = 0.0
  write: int = 0
  later_s: float = 0.0


class Writes:
  """Counts what Python is told of a process's writes below a folder, and kills it at one of them."""

  def __init__(self, root: pathlib.Path, aim: Aim | None):
    self._root, self._aim, self.count, self.first_at = f"{root}/", aim, 0, 0.0

  def __call__(self, event: str, arguments):
    writes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "shutil.copyfile") or (
        event == "open" and isinstance(arguments[1], str) and arguments[1].strip("br+") not in ("",))
    if not writes or not str(arguments[0]).startswith(self._root) or str(arguments[0]).endswith("/.lock"):
      return
    self.count += 1
    self.first_at = self.first_at or time.monotonic()
    if self._aim is not None and self.count == self._aim.write:
      if not self._aim.later_s:
        os.kill(os.getpid(), signal.SIGKILL)
      threading.Timer(self._aim.later_s, os.kill, (os.getpid(), signal.SIGKILL)).start()


def preload():
  """Imports all that the stages use; JAX must not have looked for devices, or a fork could not."""
  from pav_jax import main
  import orbax.checkpoint  # noqa: F401
  import pav_jax.problems.datasets.arithmetic  # noqa: F401
  import pav_jax.problems.tasks  # noqa: F401
  for module in [*main.STAGES.values(), *main.ALONE["rl"], "pav_jax.policy.rft"]:
    __import__(module)
  from jax._src import xla_bridge
  assert not xla_bridge.backends_are_initialized()


def forked(task, log: pathlib.Path) -> int:
  """Starts task() in a fork that ends with its status; the process's id."""
  sys.stdout.flush()
  pid = os.fork()
  if pid:
    return pid
  status = 1
  try:
    with log.open("a") as out:
      os.dup2(out.fileno(), 1)
      os.dup2(out.fileno(), 2)
    status = task()
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def stage_task(stage: str, root: pathlib.Path, cache: pathlib.Path, aim: Aim | None, noted: pathlib.Path | None, spec: str) -> int:
  """One attempt, in a process of its own; noted: where an undisturbed one writes what it was like; spec: as in --hosts."""
  import jax
  from pav_jax import main
  from pav_jax.policy import rft
  from pav_jax.training import files
  from pav_jax.training import hosts
  from pav_jax.training import mesh as mesh_lib
  from pav_jax.training.run import Run
  from tests.test_pipeline import miniature
  jax.config.update("jax_compilation_cache_dir", str(cache))
  # A kill must not leave half a program to those that come after.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9 if noted is None else 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  sys.argv[1:] = []  # which the report tells
  if spec:
    jax.config.update("jax_num_cpu_devices", 2)
  config = miniature(stage="rl" if stage == "rft" else stage, **CHANGES, **({"mesh.model": 2} if spec else {}))
  writes, start = Writes(root, aim), time.monotonic()
  sys.addaudithook(writes)
  def task():
    if stage != "rft":
      return main.run(config, root, spec)
    hosts.join(spec)
    rft.run_stage(Run(config, files.path(root), mesh_lib.make_mesh(**config.mesh)))
  status = main.to_the_end(task, several=bool(spec))
  if noted is not None:
    first_s = writes.first_at - start if writes.count else 0.0
    noted.write_text(json.dumps(dataclasses.asdict(Undisturbed(first_s, time.monotonic() - start, writes.count))))
  return status


def specs(hosts: int) -> list[str]:
  """--hosts of each."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  return [f"{address},{hosts},{i}" if hosts > 1 else "" for i in range(hosts)]


def content(folder: pathlib.Path) -> dict:
  """Everything a folder holds, by name, but for times and versions."""
  import jax
  import numpy as np
  import orbax.checkpoint as ocp
  import tensorflow as tf
  found, here = {}, jax.sharding.SingleDeviceSharding(jax.devices()[0])
  steps = {p.parent for p in folder.rglob("params") if p.is_dir()}
  for step in steps:
    for item in ("params", "rest"):
      with ocp.StandardCheckpointer() as reader:
        stored = reader.metadata(step / item).item_metadata.tree
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), stored)  # more devices wrote it
        for path, x in jax.tree_util.tree_leaves_with_path(reader.restore(step / item, like)):
          found[f"{step.relative_to(folder)}/{item}{jax.tree_util.keystr(path)}"] = np.asarray(x)
    found[f"{step.relative_to(folder)}/meta"] = without_times(json.loads((step / "meta" / "metadata").read_text()))
  for path in folder.rglob("*"):
    if path.is_dir() or any(step in path.parents for step in steps):
      continue
    name = str(path.relative_to(folder))
    if path.suffix == ".npz":
      with np.load(path) as arrays:
        found |= {f"{name} {key}": arrays[key] for key in arrays.files}
    elif ".tfrecord" in path.name:  # whose maps have another order in every process
      found[name] = [tf.train.Example.FromString(x).SerializeToString(deterministic=True) for x in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    elif path.suffix == ".json":
      found[name] = without_times(json.loads(path.read_text()))
    elif path.suffix == ".jsonl":
      found[name] = [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    else:
      found[name] = re.sub(rb"(seconds for this page</td>\s*<td[^>]*>)[^<]*", rb"\1", path.read_bytes())
  return found


def without_times(value):
  """JSON without what two undisturbed runs would not share."""
  if isinstance(value, dict):
    return {k: without_times(x) for k, x in value.items() if not k.endswith("_s") and not k.startswith("seconds") and k not in ("versions", "checksum")}
  return [without_times(x) for x in value] if isinstance(value, list) else value


def compare(stage: str, whole: pathlib.Path, killed: pathlib.Path) -> int:
  """0 if a stage has left the same in both; prints what differs."""
  import numpy as np
  differ = []
  for folder in FOLDERS[stage]:
    one, two = (content(root / folder) if (root / folder).exists() else {} for root in (whole, killed))
    differ += [f"{folder}/{name} is only in {'one' if name in one else 'the other'}" for name in one.keys() ^ two.keys()]
    for name in one.keys() & two.keys():
      same = (one[name].dtype == two[name].dtype and one[name].tobytes() == two[name].tobytes()
              if isinstance(one[name], np.ndarray) else repr(one[name]) == repr(two[name]))
      differ += [] if same else [f"{folder}/{name} differs"]
  print("\n".join(differ))
  return bool(differ)


def children(pid: int) -> list[int]:
  """Processes that a process has started, and theirs."""
  try:
    mine = [int(x) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() for x in (task / "children").read_text().split()]
  except OSError:
    return []
  return mine + [x for child in mine for x in children(child)]


def alive(pid: int) -> bool:
  """Whether a process is there and no zombie."""
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  except OSError:
    return False


def attempt(stage: str, root: pathlib.Path, base: pathlib.Path, aim: Aim, hosts: int) -> tuple[float | None, str]:
  """Starts a stage and kills it, or one of its hosts: (seconds that the others took to end, None if all ended undisturbed; what is wrong)."""
  start, death, started, statuses = time.monotonic(), math.inf, set(), {}
  pids = [forked(functools.partial(stage_task, stage, root, base / "cache", aim if i == aim.host else None, None, spec), base / "log.txt")
          for i, spec in enumerate(specs(hosts))]
  while len(statuses) < hosts and time.monotonic() < min(death + LAST_S, start + LONGEST_S):
    for i in set(range(hosts)) - statuses.keys():
      started |= set(children(pids[i]))
      done, status = os.waitpid(pids[i], os.WNOHANG)
      if done:
        statuses[i] = os.waitstatus_to_exitcode(status)
    if aim.after_s and time.monotonic() > start + aim.after_s and aim.host not in statuses:
      os.kill(pids[aim.host], signal.SIGKILL)
    if statuses.get(aim.host) == -signal.SIGKILL:
      death = min(death, time.monotonic())
    time.sleep(0.01)
  took = None if death == math.inf else time.monotonic() - death
  behind = set(range(hosts)) - statuses.keys()
  for i in behind:
    os.kill(pids[i], signal.SIGKILL)
    os.waitpid(pids[i], 0)
  limit = time.monotonic() + 20
  while (left := [x for x in started if alive(x)]) and time.monotonic() < limit:
    time.sleep(0.05)
  others = {x for i, x in statuses.items() if i != aim.host}
  wrong = ""
  if behind:
    wrong = f"hosts {behind} do not end, " + (f"{LAST_S} s after host {aim.host} was killed" if took else f"in {LONGEST_S} s")
  elif left:
    wrong = f"processes {left} outlive the run"
  elif not others <= {0, 1} or took is None and set(statuses.values()) != {0}:
    wrong = f"hosts ended with {statuses}: {(base / 'log.txt').read_text()[-2000:]}"
  return took, wrong


def undisturbed(stage: str, base: pathlib.Path, hosts: int) -> list[Undisturbed]:
  """Runs a stage in base/whole, if that has not been done, and once more with its programs compiled, which is what is noted, of each host."""
  noted = [base / f"{stage}.{i}.json" for i in range(hosts)]
  if not all(path.exists() for path in noted):
    (base / "whole").mkdir(parents=True, exist_ok=True)
    for root in (base / "whole", base / "again"):
      if root.name == "again":
        shutil.copytree(base / "whole", root, ignore=shutil.ignore_patterns(*FOLDERS[stage]))
      pids = [forked(functools.partial(stage_task, stage, root, base / "cache", None, path, spec), base / "log.txt")
              for path, spec in zip(noted, specs(hosts))]
      statuses = [os.waitpid(pid, 0)[1] for pid in pids]
      assert not any(statuses), (base / "log.txt").read_text()[-3000:]
    shutil.rmtree(base / "again")
  return [Undisturbed(**json.loads(path.read_text())) for path in noted]


def disturb(stage: str, base: pathlib.Path, were: list[Undisturbed], kills: int, rng: random.Random) -> dict:
  """Kills a stage so often, or up to the first thing that is wrong; the counts, and what that was."""
  killed = base / "killed"
  killed.mkdir(exist_ok=True)
  for folder in FOLDERS[stage]:
    shutil.rmtree(killed / folder, ignore_errors=True)
  counts = {"kills": 0, "at_a_write": 0, "ends": 0, "others_end_s": 0.0, "wrong": ""}
  start = time.monotonic()
  while not counts["wrong"] and (counts["kills"] < kills or not counts["ends"] or any((killed / folder).exists() for folder in FOLDERS[stage])):
    host = rng.randrange(len(were)) if len(were) > 1 else 0
    was = were[host]
    aim = Aim(host, after_s=rng.uniform(0.9 * was.first_s, was.seconds))
    if counts["kills"] >= kills:
      aim = Aim()
    elif was.writes and rng.random() < 0.5:
      aim = Aim(host, write=rng.randint(1, was.writes), later_s=rng.choice((0.0, rng.uniform(0, 0.05))))
    took, counts["wrong"] = attempt(stage, killed, base, aim, len(were))
    if took is not None:
      counts["kills"] += 1
      counts["others_end_s"] = max(counts["others_end_s"], round(took, 1))
      counts["at_a_write"] += bool(aim.write)
    elif not counts["wrong"]:
      differences = base / "differences.txt"
      differences.unlink(missing_ok=True)
      _, status = os.waitpid(forked(functools.partial(compare, stage, base / "whole", killed), differences), 0)
      if status:
        counts["wrong"] = f"after {counts['kills']} kills: {differences.read_text()[-2000:]}"
      counts["ends"] += 1
      for folder in FOLDERS[stage]:
        shutil.rmtree(killed / folder, ignore_errors=True)
  return counts | {"seconds": round(time.monotonic() - start, 1)}


def main() -> int:
  """0 if every stage left what it leaves undisturbed."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--stages", default=",".join(FOLDERS), help="Which are killed; those before them run, too.")
  parser.add_argument("--kills", type=int, default=20, help="Of each stage.")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--hosts", type=int, default=1, help="How many processes a stage runs on.")
  parser.add_argument("--results", default="", help="A file to add a JSON line to for each stage.")
  parser.add_argument("--workdir", default="", help="Where all of it happens and is kept, the undisturbed run for another time; left out: a temporary folder.")
  options = parser.parse_args()
  wanted = options.stages.split(",")
  preload()
  status = 0
  with tempfile.TemporaryDirectory() as temporary:
    base = pathlib.Path(options.workdir or temporary).absolute()
    for stage in list(FOLDERS)[:max(map(list(FOLDERS).index, wanted)) + 1]:
      were = undisturbed(stage, base, options.hosts)
      if stage in wanted:
        line = {"stage": stage, **disturb(stage, base, were, options.kills, random.Random(f"{options.seed} {stage}")),
                "seed": options.seed, "hosts": options.hosts, "undisturbed_s": round(were[0].seconds, 1), "writes": sum(was.writes for was in were),
                "hardware": f"{len(os.sched_getaffinity(0))} cores, {cpu()}", "python": platform.python_version()}
        status = status or bool(line["wrong"])
        print(json.dumps(line), flush=True)
        if options.results:
          with open(options.results, "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
      for folder in FOLDERS[stage]:
        shutil.rmtree(base / "killed" / folder, ignore_errors=True)
        if (base / "whole" / folder).exists():
          shutil.copytree(base / "whole" / folder, base / "killed" / folder)
  return int(status)


def cpu() -> str:
  """The processor's name."""
  lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
  os.environ |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
  sys.exit(main())
