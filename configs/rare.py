r"""Where the policy is seldom right: what a prover of its own adds to a beam when Q^pi cannot be learnt.

Four or five days modulo 20, nine in ten of them luring. The policy's demonstrator falls for the lure three times in four;
the prover's two times in five, and errs half as often. So the policy solves about a twentieth, and its verifier sees hardly
a right answer; the prover solves a few times as many of the same problems. Twelve minutes on 2 cores, the prover first:

  for stage in problems sft rollouts values verifier; do
    python -m pav_jax.main --config=configs/rare.py:prover --config.stage=$stage --workdir=runs/rare/prover; done
  python -m pav_jax.main --config=configs/rare.py:policy --workdir=runs/rare/policy \
    --config.vocabulary.path=runs/rare/prover/problems/vocabulary.model --config.search.provers.prover=runs/rare/prover/verifier/q/best

Another training: --config.seed=1 in both, and other folders. The report has the beams by Q^pi, with best-of-4 of it and with
the prover's A^mu, each with the final choice by Q^pi, by the effective reward and by the prover's Q (docs/results/search.md).
The test problems have a seed of their own, on which nothing was tried before the settings stood.
"""

from configs import default


def get_config(who: str):
  """See the top of the file; who: policy or prover."""
  if who not in ("policy", "prover"):
    raise ValueError(f"configs/rare.py:{who}: one of policy, prover")
  config = default.get_config()
  config.arithmetic.test_seed = 20_261_128
  config.arithmetic.dials.update(dict(lure=0.9, modulus=20, min_length=4, max_length=5))
  config.arithmetic.dials.update(dict(noise=0.2, lured=0.75) if who == "policy" else dict(noise=0.1, lured=0.4))
  config.problems.update(dict(max_prompt=44, max_solution=38))
  config.rollouts.update(dict(num_problems=6000, max_new=38))
  config.monte_carlo.n_mc = 4
  config.vocabulary.size = config.policy.vocab_size = config.verifier.model.vocab_size = 400
  config.verifier.every_token = True
  if who == "policy":
    config.search.update(dict(arms=("q_beam", "pav_beam", "pav_beam@prover"), widths=(4, 8)))
  return config
