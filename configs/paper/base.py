"""What the paper's runs share (App. D, E; docs/how-to/pods.md says how to launch them). Not a run by itself.

Not stated there, and our choice: temperature 1, n_cov 4, the PRM800K split
with 500 of its 12,000 training problems for validation, betas 0.9 / 0.95,
no weight decay, up to 512 response tokens.
"""

from configs import default

REQUIRED = "<required>"  # main refuses to start while a key still says so


def get_config(policy: str, *, peak_lr: float, alpha: float, rl_alpha: float, rl_steps: int):
  """Gemma 2 `policy` on MATH, with a 9B verifier; vocabulary.path and the two init_from must come from the command line."""
  config = default.get_config()
  p = config.problems
  p.train = p.validation = p.test = "math_prm800k"
  p.prompt = "Problem:\n{question}\n\nSolution:\n"
  p.max_prompt, p.max_solution, p.max_too_long, p.problems_per_shard = 512, 1024, 0.05, 2000
  config.vocabulary.update(dict(size=256_000, path=REQUIRED))
  network = dict(vocab_size=256_128, param_dtype="float32", dtype="bfloat16", logit_chunk=64)
  # Without pretrained weights this is another experiment: no default that trains from scratch in silence.
  config.policy.update(dict(size=policy, init_from=REQUIRED, **network))
  config.verifier.model.update(dict(size="gemma2_9b", **network))
  config.sft.update(dict(num_steps=5_000, batch_size=32, peak_lr=peak_lr, warmup_steps=500,
                         eval_every=250, save_every=250))
  config.rollouts.update(dict(num_problems=-1, n_cov=4, max_new=512, rows=512, problems_per_shard=100))
  config.monte_carlo.update(dict(strategy="first_pit", n_mc=20, seeds_per_problem=-1, max_steps=40, rows=512,
                                 responses_per_shard=100))
  config.verifier.update(dict(init_from=REQUIRED, balance="buckets", text_weight=0.0, prover_k=4, orm_at_end=True,
                              own_outcomes=False, kinds=("orm", "q")))
  for kind in ("orm", "q", "advantage"):
    config.verifier[kind].update(dict(num_steps=20_000, batch_size=32, peak_lr=5e-7, warmup_steps=2_000,
                                      eval_every=1_000, save_every=500))
  config.rft.update(dict(num_steps=5_000, batch_size=32, peak_lr=peak_lr, warmup_steps=500, eval_every=250, save_every=250))
  # The prover is the SFT policy itself, which RL leaves behind (section 5). Responses a problem, the value function's rate and its first steps: not stated, ours.
  config.rl.update(dict(num_steps=rl_steps, batch_size=32, group=4, microbatches=8, peak_lr=1e-7, value_lr=1e-5, value_warmup=50,
                        warmup_steps=rl_steps // 10, eval_every=100, save_every=100, alpha=rl_alpha, prover="q", baseline="value",
                        kl=0.001, rows=128, share=4, parity_tolerance=0.5, eval_problems=500, test_problems=500))
  # A beam of 128 has the FLOPs of best-of-384, more where its responses are longer: with fewer samples nothing is compared there.
  config.search.update(dict(num_problems=500, num_seeds=3, max_n=512, widths=(2, 4, 8, 16, 32, 64, 128),
                            alpha=alpha, prover_k=4, max_step=128, rows=768))
  return config
