"""Every config has exactly the default's keys and types; the paper's runs have the paper's numbers."""

import importlib
import importlib.util
import pathlib

import pytest

from configs import default
from configs import smoke
from pav_jax.policy import arms

PAPER = ("2b", "9b", "27b")


def paper(size):
  config = importlib.import_module(f"configs.paper.gemma2_{size}_math").get_config()
  config.policy.init_from, config.verifier.init_from, config.vocabulary.path = "policy", "verifier", "tokenizer"
  return config


def leaves(config, path=""):
  for key, value in config.items():
    if hasattr(value, "items"):
      yield from leaves(value, f"{path}{key}.")
    else:
      yield f"{path}{key}", value


@pytest.mark.parametrize("config", [
    *(importlib.import_module(f"configs.{name}").get_config() for name in ("quickstart", "sparse")), smoke.get_config("gsm8k"), smoke.get_config("math"),
    *map(paper, PAPER)])
def test_keys_and_types_are_the_defaults(config):
  wanted, found = dict(leaves(default.get_config())), dict(leaves(config))
  assert found.keys() == wanted.keys()
  assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in wanted.items()}
  assert None not in found.values()


def test_every_arm_has_its_rate():
  rl = default.get_config().rl
  assert list(rl.lr_factor) == list(rl.kl_factor) == sorted(arms.ARMS)


def test_the_papers_configs_name_the_slices_they_are_compiled_for():
  spec = importlib.util.spec_from_file_location("pods", pathlib.Path(__file__).parent / "benchmarks/pods.py")
  pods = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(pods)
  for size in PAPER:
    said = importlib.import_module(f"configs.paper.gemma2_{size}_math").__doc__
    slices = {run.topology for run in pods.RUNS if run.size == size}
    assert {name.partition(":")[0] for name in slices} == {"v4", "v5e", "v5p"} and all(name in said for name in slices), (size, slices)


@pytest.mark.parametrize("size, peak_lr, alpha", [("2b", 5e-6, 0.5), ("9b", 5e-6, 0.5), ("27b", 5e-7, 0.2)])
def test_the_papers_numbers(size, peak_lr, alpha):
  c = paper(size)
  assert (c.policy.size, c.verifier.model.size) == (f"gemma2_{size}", "gemma2_9b")
  assert (c.sft.num_steps, c.sft.batch_size, c.sft.peak_lr, c.sft.warmup_steps) == (5000, 32, peak_lr, 500)
  q = c.verifier.q
  assert (q.num_steps, q.batch_size, q.peak_lr, q.warmup_steps) == (20_000, 32, 5e-7, 2_000)
  m = c.monte_carlo
  assert (m.strategy, m.seeds_per_problem, m.reuse, m.first_pit.pit_max_q) == ("first_pit", -1, False, 0.0)
  assert (c.monte_carlo.n_mc, c.verifier.balance, c.verifier.init_from) == (20, "buckets", "verifier")
  assert (c.search.prover_k, c.search.alpha, c.search.candidates, c.rollouts.max_new) == (4, alpha, 3, 512)
