"""Real text through every stage with a tiny model, in a few minutes; its accuracy is honest and near zero.

  python -m pav_jax.main --config=configs/smoke.py:gsm8k --config.problems.manual_dir=PATH --workdir=runs/gsm8k
  python -m pav_jax.main --config=configs/smoke.py:math --config.problems.manual_dir=PATH --workdir=runs/math

PATH holds the publishers' files: `gsm8k/{train,test}.jsonl`; `MATH/` or
`MATH.tar.gz`, and `prm800k/math_splits/` for its split.
"""

from configs import default

TASKS = {"gsm8k": "gsm8k", "math": "math_prm800k"}


def get_config(task: str):
  """See the top of the file; task: gsm8k or math."""
  if task not in TASKS:
    raise ValueError(f"configs/smoke.py:{task}: one of {', '.join(TASKS)}")
  config = default.get_config()
  p = config.problems
  p.train = p.validation = p.test = TASKS[task]
  p.prompt = "Question: {question}\nAnswer:\n"
  p.max_prompt, p.max_solution, p.max_too_long, p.limit, p.problems_per_shard = 192, 192, 0.9, 400, 200
  config.vocabulary.size, config.vocabulary.train_on = 1024, 1000
  config.policy.vocab_size = config.verifier.model.vocab_size = 1024
  config.sft.update(dict(num_steps=20, batch_size=16, warmup_steps=19, eval_every=20, save_every=10, log_every=5))
  config.rollouts.update(dict(num_problems=16, n_cov=2, max_new=64, rows=64, problems_per_shard=8))
  config.monte_carlo.update(dict(n_mc=2, max_steps=8, rows=64, responses_per_shard=16))
  for kind in config.verifier.kinds:
    config.verifier[kind].update(dict(num_steps=10, batch_size=8, warmup_steps=9, eval_every=10, save_every=10, log_every=5))
  config.search.update(dict(num_problems=8, num_seeds=1, max_n=4, widths=(1, 2), max_rounds=6, max_step=24,
                            rows=24))
  return config
