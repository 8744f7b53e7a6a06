"""Every config has exactly the default's keys and types; the paper's runs have the paper's numbers."""

import functools
import importlib
import importlib.util
import pathlib

import numpy as np
import pytest

from configs import default
from configs import provers
from configs import rare
from configs import smoke
from configs import spending
from pav_jax.evaluation import tables
from pav_jax.models import architecture
from pav_jax.models import size as model_size
from pav_jax.policy import arms
from pav_jax.search import ledger

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
    rare.get_config("rare"), rare.get_config("good"), provers.get_config("weak"),
    provers.get_config("strong"), spending.get_config("wide"), spending.get_config("pit"),
    *map(paper, PAPER)])
def test_keys_and_types_are_the_defaults(config):
  # The names of provers are the config's own.
  wanted, found = ({k: v for k, v in leaves(x) if not k.startswith(("search.provers.", "rl.provers.")) and "@" not in k} for x in (default.get_config(), config))
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


def samples_for(config, width, longer):
  """N of ORM best-of-N with the FLOPs of a beam: prompts of 100 tokens, responses of 200, the beam's `longer` times that, steps of 25."""
  policy, verifier = (functools.partial(model_size.forward_flops, architecture.shape(section))
                      for section in (config.policy, config.verifier.model))
  prompt, new, step, one = 100, np.array([[[200]]]), 25, np.array([100])
  prompts = ledger.prompts(policy, one, verifier=False) + ledger.prompts(verifier, one, verifier=True)
  samples = tables.Samples(**dict.fromkeys(tables.Samples._fields) | {
      "length_spn": new, "policy_flops_spn": policy(prompt - 1, prompt - 1 + new, new),
      "verifier_flops_spn": verifier(prompt, prompt + new), "prompt_length_sp": one[None],
      "policy_prompt_flops_sp": prompts.policy_flops_p[None], "verifier_prompt_flops_sp": prompts.verifier_flops_p[None]})
  rows, beam = np.zeros(width * config.search.candidates, int), prompts
  for start in range(prompt, prompt + int(200 * longer), step):
    for cost, flops in ((ledger.drawn, policy), (ledger.scored, verifier)):
      beam += cost(flops, rows, np.full(len(rows), start), np.full(len(rows), step), 1)
  return tables.smallest_n(samples, "orm_best_of_n", "flops", float(beam.flops_p[0]))


@pytest.mark.parametrize("config", [default.get_config(), *map(paper, PAPER)], ids=["quickstart", *PAPER])
def test_samples_suffice_for_every_beams_flops(config):
  """Three candidates a step take three times the samples; responses of a beam may be a quarter longer, too."""
  widths, max_n = config.search.widths, config.search.max_n
  assert [samples_for(config, width, 1) for width in widths] == [3 * width for width in widths]
  wanted = max(samples_for(config, width, 1.25) for width in widths)
  assert wanted <= max_n


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
