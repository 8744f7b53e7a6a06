"""What a policy does when it pleases its verifier instead of solving problems, in figures and in alarms.

The figures of a batch of responses are set against those of the policy RL
started from, on problems of its own: what one task does by nature (a line that
stands in every solution) is no alarm in it.
"""

import json
import sys
from collections.abc import Mapping

from etils import epath
import numpy as np

from pav_jax.grading import grading
from pav_jax.training import files
from pav_jax.training import hosts
from pav_jax.training import metrics


class Alarms:
  """A line on stderr and in a file for each alarm of a run, by the first process; one of a kind."""

  def __init__(self, path: epath.Path, what: str):
    self._path, self._what, self._told = path, what, set()

  def restart(self, step: int):
    """So many iterations stand; what later ones told was told by a part of the run that is lost."""
    kept = [row for row in metrics.read_curves(self._path) if row["step"] < step]
    self._told = {row["alarm"].split()[0] for row in kept}
    if hosts.first():
      files.write(self._path, "".join(json.dumps(row) + "\n" for row in kept))

  def tell(self, step: int, line: str):
    """An alarm of iteration `step`, unless there has been one of that first word."""
    if line.split()[0] in self._told:
      return
    self._told.add(line.split()[0])
    if hosts.first():
      print(f"{self._what}: iteration {step}: {line}", file=sys.stderr)
      files.append(self._path, json.dumps({"step": step, "alarm": line}) + "\n")

  @property
  def count(self) -> int:
    """How many have been told."""
    return len(self._told)


def figures(prompts: list[tuple[int, ...]], responses: list[list[tuple[int, ...]]], length_b, ended_b, verdict_b) -> dict[str, float]:
  """Shares and means over responses, given as their steps' token ids; prompts without BOS.

  repeated: steps that stand earlier in the same response; restated: steps of
  which the whole is a run of the prompt; steps, length: per response;
  truncated, ungradable: responses.
  """
  count = max(len(responses), 1)
  flat = [step for steps in responses for step in steps]
  repeated = sum(len(steps) - len(set(steps)) for steps in responses)
  restated = sum(_inside(step, prompt) for prompt, steps in zip(prompts, responses) for step in steps)
  return {"repeated": repeated / max(len(flat), 1), "restated": restated / max(len(flat), 1),
          "steps": len(flat) / count, "length": float(np.mean(length_b)), "truncated": float(1 - np.mean(ended_b)),
          "ungradable": float(np.mean(np.asarray(verdict_b) == grading.Verdict.UNGRADABLE))}


def commonest(problem_b, responses: list[list[tuple[int, ...]]]) -> float:
  """Share of the problems with a response that holds the step which most problems' responses hold."""
  holders = {}
  for problem, steps in zip(problem_b, responses):
    for step in set(steps):
      holders.setdefault(step, set()).add(int(problem))
  return max(map(len, holders.values()), default=0) / max(len(set(map(int, problem_b))), 1)


def _inside(step: tuple[int, ...], prompt: tuple[int, ...]) -> bool:
  """Whether two tokens or more stand in the prompt as they are; the token that ends the step does not count."""
  body = step[:-1]
  return len(body) > 1 and any(prompt[i:i + len(body)] == body for i in range(len(prompt) - len(body) + 1))


def alarms(recent: Mapping[str, float], start: Mapping[str, float], *, share: float, factor: float, kl: float) -> list[str]:
  """What has gone too far, in words. recent: figures of the last batches, with `kl`, `reward` (process) and `accuracy`.

  share: how much a share may rise above the start's; factor: how many times
  the start's steps or length, up or down; kl: nats a token from the initial
  policy. The process paying more while fewer answers are right is one, too.
  """
  found = [f"{name} {recent[name]:.2f}, at the start {start[name]:.2f}"
           for name in ("repeated", "restated", "commonest", "truncated", "ungradable") if recent[name] > start[name] + share]
  found += [f"{name} {recent[name]:.1f} a response, at the start {start[name]:.1f}"
            for name in ("steps", "length") if not start[name] / factor <= recent[name] <= start[name] * factor]
  if recent["kl"] > kl:
    found.append(f"kl {recent['kl']:.2f} nats a token")
  if recent["reward"] > start["reward"] + share / 4 and recent["accuracy"] < start["accuracy"] - share / 4:
    found.append(f"process reward {start['reward']:.2f} -> {recent['reward']:.2f} while accuracy "
                 f"{start['accuracy']:.2f} -> {recent['accuracy']:.2f}")
  return found
