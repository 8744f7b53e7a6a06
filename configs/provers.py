r"""Whose progress? Figure 5b (best-of-K) and 5c (other policies, a weaker one too), and mu = pi, on the bed of configs/rare.py.

  weak     the policy `rare`, seldom right: its own best-of-K with K = 1 (mu = pi), 2, 4, 8 and 32, and the stronger `good`
  strong   the policy `good`: the weaker `rare` for its prover, and best-of-K of its own

All beams of one run draw the same, at the same widths, each with its alpha from validation problems. From what the commands in
configs/rare.py leave in runs/rareN, for N = 0, 1, 2 (an hour and a half of them each), 10 to 15 minutes each on 2 cores:

  mkdir -p runs/weakN runs/strongN
  for of in problems sft rollouts values verifier; do cp -a runs/rareN/rare/$of runs/weakN; done
  for of in problems sft rollouts values; do cp -a runs/rareN/good/$of runs/strongN; done
  for stage in tune search; do
    python -m pav_jax.main --config=configs/provers.py:weak --config.seed=N --config.stage=$stage --workdir=runs/weakN \
      --config.search.provers.good=runs/rareN/good/verifier/q/best; done
  for stage in verifier tune search; do
    python -m pav_jax.main --config=configs/provers.py:strong --config.seed=N --config.stage=$stage --workdir=runs/strongN \
      --config.search.verifier=runs/rareN/good/verifier/q/best --config.search.provers.rare=runs/rareN/rare/verifier/q/best; done

With N = 1 and 2 the flag --config.arithmetic.train_seed that made runs/rareN belongs to all of them, too. Then, with intervals over trainings:

  python -m pav_jax.trainings runs/weak0 runs/weak1 runs/weak2 --output=docs/results/records/provers_weak.json
  python -m pav_jax.trainings runs/strong0 runs/strong1 runs/strong2 --output=docs/results/records/provers_strong.json
"""

from configs import rare

# mu = pi and the K of Figure 5b, with 8 between them.
KS = (1, 2, 4, 8, 32)


def get_config(who: str):
  """See the top of the file; who: 'weak' or 'strong'."""
  if who not in ("weak", "strong"):
    raise ValueError(f"configs/provers.py:{who}: weak or strong")
  config = rare.get_config("rare" if who == "weak" else "good")
  others = ("good",) if who == "weak" else ("rare",)
  config.search.update(dict(
      provers=dict.fromkeys(others, ""), widths=(4, 8), num_seeds=1, tuned=True, tune_problems=100,
      arms=("q_beam", *(f"pav_beam@best_of_{k}" for k in KS), *(f"pav_beam@{other}" for other in others))))
  if who == "strong":
    config.verifier.kinds = ("orm",)  # of Q there is one already: search.verifier
  return config
