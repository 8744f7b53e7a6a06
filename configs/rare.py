r"""Policies that are seldom right, and provers of their own: where the question of progress is open (docs/results/search.md).

One kind of problems for all: seven or eight days modulo 53, half of them luring, so eight or nine steps. Four demonstrators
differ in how often they fall for the lure and how often they err. Each trains a policy and its verifier of Q; each policy can
be searched with each verifier for its prover. Exact success of the demonstrators, guesses that happen to be right among it
(one in 53, for a wrong number can become the right one again):

  worst   .02    falls for the lure seven times in ten, errs three times in ten
  rare    .05    .55 and .2: the policy that is searched; its verifier sees few right answers
  fair    .20    .3 and .1
  good    .46    .15 and .05

A quarter of an hour each on 2 cores; `rare` is the first, for the others read its vocabulary:

  python -m pav_jax.main --config=configs/rare.py:rare --config.stage=problems --workdir=runs/rare/rare
  for who in good fair worst; do for stage in problems sft rollouts values verifier; do
    python -m pav_jax.main --config=configs/rare.py:$who --config.stage=$stage --workdir=runs/rare/$who \
      --config.vocabulary.path=runs/rare/rare/problems/vocabulary.model; done; done
  for stage in sft rollouts values verifier tune search report; do
    python -m pav_jax.main --config=configs/rare.py:rare --config.stage=$stage --workdir=runs/rare/rare \
      --config.search.provers.good=runs/rare/good/verifier/q/best; done

The arms of search rank by Q^pi, by progress, by the prover's Q and by the prover's A, and controls stand beside them. Each
arm's knob is tuned on validation problems (stage tune). `fair` and `worst` are provers for other tables.

RL on the same bed pays the policy for progress under best-of-K of itself, and under `good`:

  python -m pav_jax.main --config=configs/rare.py:rare --config.stage=rl --workdir=runs/rare/rare \
    --config.rl.provers.good=runs/rare/good/verifier/q/best --config.rl.seeds=0,

Another training: --config.seed=1 --config.arithmetic.train_seed=11 in all, and other folders; its RL has --config.rl.seeds=1,. Several trainings
in one table: python -m pav_jax.trainings WORKDIR... --output=FILE.json, of RL with --of=rl. The test problems have a seed of their own, on
which nothing was tried before the settings stood.
"""

from configs import default

# Share of luring days, and of others, on which the demonstrator takes the wrong operation.
DEMONSTRATORS = {
    "worst": {"lure": 0.7, "noise": 0.3},
    "rare": {"lure": 0.55, "noise": 0.2},
    "fair": {"lure": 0.3, "noise": 0.1},
    "good": {"lure": 0.15, "noise": 0.05}}


def get_config(who: str):
  """See the top of the file; who: one of DEMONSTRATORS."""
  if who not in DEMONSTRATORS:
    raise ValueError(f"configs/rare.py:{who}: one of {', '.join(DEMONSTRATORS)}")
  config = default.get_config()
  config.arithmetic.test_seed = 77_001
  config.arithmetic.dials.update(dict(lured=0.5, modulus=53, min_length=7, max_length=8, **DEMONSTRATORS[who]))
  config.problems.update(dict(max_prompt=52, max_solution=46))
  config.rollouts.update(dict(num_problems=6000, max_new=46))
  config.monte_carlo.n_mc = 4
  config.vocabulary.size = config.policy.vocab_size = config.verifier.model.vocab_size = 480
  config.verifier.every_token = True
  config.verifier.orm.num_steps = 600
  if who != "rare":
    config.verifier.kinds = ("q",)
    return config
  provers = dict.fromkeys((name for name in DEMONSTRATORS if name != "rare"), "")
  config.search.update(dict(
      provers=provers, widths=(2, 4, 8, 16), num_seeds=1, tuned=True,
      tune_problems=100,
      arms=("q_beam", "pav_beam", "pav_beam@good", "prover_q_beam@good", "prover_a_beam@good", "prover_q_subtrees@good",
            "prover_particles@good", "particles_progress@good", "random_beam@good", "constant_beam")))
  config.rl.update(dict(
      init_from="sft", provers=provers, num_steps=300, eval_every=20, save_every=100, batch_size=1, rows=512, peak_lr=1.4e-4, updates=4,
      clip_ratio=0.2, kl=0.05, alpha=3.0, critic=True, seeds=(0, 1, 2, 3, 4), eval_n=4, eval_problems=200, test_problems=200, watch_prover=12,
      arms=("outcome", "outcome_critic", "progress", "progress@good", "random@good")))
  # Each arm's own best of one grid, on validation problems with other seeds (docs/results/rl.md). The random control has progress@good's.
  config.rl.lr_factor.update({"outcome": 0.5, "progress@good": 2.0, "random@good": 2.0})
  config.rl.kl_factor.update({"progress@good": 4.0, "random@good": 4.0})
  return config
