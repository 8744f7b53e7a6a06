r"""On what should continuations be spent? Figure 6b (n_mc against n_cov at equal budget) and 11 (first pit), on the quickstart's problems.

Sixteen continuations for each place of a problem's solutions, and few problems, so that labels are scarce:

  wide   8 seeds a problem (n_cov), 2 continuations of each prefix (n_mc)
  even   4 and 4
  deep   2 and 8
  deepest  1 and 16
  pit    2 seeds, first pit (App. D), 20 continuations of each prefix that it keeps

The labels are of continuations alone, for all ways alike. From what `make quickstart` leaves in runs/quickstart, for each WAY and,
for intervals over trainings, N = 0, 1, 2, five minutes each on 2 cores:

  mkdir -p runs/WAYN
  cp -a runs/quickstart/problems runs/quickstart/sft runs/WAYN       # N = 0; the others with --config.seed=N, from stages problems and sft
  for stage in rollouts values verifier search; do
    python -m pav_jax.main --config=configs/spending.py:WAY --config.seed=N --config.stage=$stage --workdir=runs/WAYN; done
  python -m pav_jax.trainings runs/WAY0 runs/WAY1 runs/WAY2 --output=docs/results/records/spending_WAY.json

The record has the tokens behind the labels beside every accuracy.
"""

from configs import default

# Seeds a problem, continuations of a prefix, and how they are spent.
WAYS = {
    "wide": (8, 2, "uniform"), "even": (4, 4, "uniform"), "deep": (2, 8, "uniform"), "deepest": (1, 16, "uniform"),
    "pit": (2, 20, "first_pit")}


def get_config(way: str):
  """See the top of the file; way: one of WAYS."""
  if way not in WAYS:
    raise ValueError(f"configs/spending.py:{way}: one of {', '.join(WAYS)}")
  config = default.get_config()
  n_cov, n_mc, strategy = WAYS[way]
  config.rollouts.update(dict(num_problems=1500, n_cov=n_cov))
  config.monte_carlo.update(dict(n_mc=n_mc, strategy=strategy, seeds_per_problem=-1))
  config.verifier.own_outcomes = False
  config.verifier.orm.num_steps = 100  # nothing is asked of it here
  config.search.update(dict(widths=(2, 4), num_seeds=1, max_n=8))
  return config
