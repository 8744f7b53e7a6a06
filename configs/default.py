"""Every knob with its default: the small test bed. Other configs start from this one and say what differs.

Sections stand in the order of the pipeline. Paths left '' mean the run's own. A number of problems is how many of the
split, in its order, are used: -1 is all there are, and more than there are is refused.
"""

import ml_collections

# What RL may pay for (pav_jax/policy/arms.py).
ARMS = ("outcome", "reinforce", "grpo", "outcome_critic", "progress", "self", "oracle", "random", "vine", "uncertain", "shaping", "value",
        "min_form", "first_error", "implicit", "answer_probability", "renewed")


def optimizer(**changes) -> ml_collections.ConfigDict:
  """A training section: Adam (betas 0.9, 0.95), warm-up, cosine to 0."""
  knobs = ml_collections.ConfigDict({
      "num_steps": 600, "batch_size": 32, "microbatches": 1, "peak_lr": 3e-3, "warmup_steps": 50,
      "b1": 0.9, "b2": 0.95, "clip_norm": 1.0, "weight_decay": 0.0,
      "eval_every": 200, "save_every": 500, "keep": 2, "log_every": 20})
  knobs.update(changes)
  return knobs


def model(**changes) -> ml_collections.ConfigDict:
  """A network section: a size of pav_jax/models/gemma.py and how it is stored and computed.

  size '' is what the weights are that it begins from (init_from), and vocab_size then is theirs, too.
  """
  knobs = ml_collections.ConfigDict({
      "size": "nano", "vocab_size": 376, "param_dtype": "float32", "dtype": "float32", "logit_chunk": 128})
  knobs.update(changes)
  return knobs


def search() -> ml_collections.ConfigDict:
  """The section search: who is searched by whom (pav_jax/search/arms.py), and for how much."""
  return ml_collections.ConfigDict({
      # verifier: who says Q^pi, '' the run's own of kind q; a kind of verifier.kinds, or a checkpoint (rl.verifier, too).
      "split": "test", "num_problems": -1, "num_seeds": 2, "policy_checkpoint": "", "verifier": "",
      "max_n": 32, "widths": (2, 4, 8), "candidates": 3, "alpha": 0.5,
      # Arms and provers: pav_jax/search/arms.py. A prover is a name and the path of a verifier of its Q; names are free.
      "arms": ("q_beam", "pav_beam"), "prover_k": 4, "provers": {"prover": ""}, "pav_rerank": "mean", "distinct": False,
      "lookahead": 1, "lookahead_temperature": 0.0, "particle_temperature": 1.0,
      # What the stage `tune` tries on validation problems, and `tuned` takes: as many settings of the one knob that each arm has.
      "settings": {"alpha": (0.25, 0.5, 1.0, 4.0), "candidates": (2, 3, 4, 6), "lookahead": (1, 2, 3, 4),
                   "particle_temperature": (0.1, 0.3, 1.0, 3.0)},
      "tune_width": 4, "tune_problems": -1, "tuned": False,
      "max_rounds": 40, "max_step": 8,
      "temperature": 1.0, "top_k": 0, "top_p": 1.0, "rows": 768})


def get_config() -> ml_collections.ConfigDict:
  """See the top of the file."""
  return ml_collections.ConfigDict({
      "stage": "pipeline",
      "seed": 0,
      "mesh": {"data": -1, "fsdp": 1, "model": 1},
      "problems": {
          "train": "arithmetic", "validation": "arithmetic", "test": "arithmetic",
          "prompt": "{question}\n", "steps": "newline",
          # Of one's own files: the names that each column may have (the first that is there; none at all: there is no such
          # column), and how answers are compared where a row's `dataset` does not say.
          "columns": {
              "question": ("question", "problem", "query"), "answer": ("answer", "final_answer", "expected_answer"),
              "solution": ("solution", "generated_solution", "response"), "id": ("id", "unique_id"), "dataset": ("dataset",)},
          "family": "math",
          # Kinds of suspicious problems that do not come along: contradiction, duplicate, leak, escapes, special.
          "leave_out": (),
          "data_dir": "", "manual_dir": "", "validation_size": 500, "max_malformed": 0,
          "max_prompt": 28, "max_solution": 24, "max_too_long": 0.0, "limit": -1, "problems_per_shard": 5000},
      "arithmetic": {
          "dials": {
              "min_length": 3, "max_length": 4, "modulus": 16, "operations": ("+1", "+3", "-2", "-5", "*3", "*7"),
              "noise": 0.1, "lure": 0.7, "lured": 0.5,
              "slip": 0.0, "restate": 0.0, "slack": 1, "give_up": 0.0, "bystanders": 0.0},
          "train_size": 12000, "validation_size": 500, "test_size": 200, "train_seed": 1, "validation_seed": 2,
          "test_seed": 20_241_010},
      "vocabulary": {"path": "", "size": 376, "train_on": 5000},
      "grading": {"workers": 2, "timeout_s": 5.0},
      "policy": {**model(), "init_from": ""},
      "sft": optimizer(num_steps=500),
      "rollouts": {
          "checkpoint": "", "num_problems": -1, "n_cov": 2, "max_new": 26,
          "temperature": 1.0, "top_k": 0, "top_p": 1.0, "rows": 512, "problems_per_shard": 2000},
      "monte_carlo": {
          "checkpoint": "", "strategy": "uniform", "n_mc": 2, "reuse": False, "seeds_per_problem": 1, "max_steps": 12,
          "adaptive": {"pilot": 2, "prior": (0.3, 0.7)},
          "first_pit": {"probes": 8, "pit_max_q": 0.0, "high_q": 0.5},
          "temperature": 1.0, "top_k": 0, "top_p": 1.0, "rows": 1024, "responses_per_shard": 2000},
      # Labels of others: stage `labels` (pav_jax/values/imported.py), for verifier.labels=imported or both.
      "labels": {
          "files": "", "format": "trl", "neutral": "good", "max_prompt": 256, "max_response": 512, "max_steps": 64,
          "max_malformed": 0, "rows_per_shard": 2000},
      # 'advantage', a verifier of A^mu itself, needs monte_carlo.n_mc of at least prover_k. Kinds of label that others use are
      # hard, drop, relative, effective, trained by the section q, and implicit (pav_jax/verifiers/targets.py).
      "verifier": {
          "kinds": ("orm", "q"), "labels": "monte_carlo", "model": model(), "init_from": "sft", "pretrain": optimizer(num_steps=0),
          "balance": "classes", "text_weight": 0.15, "prover_k": 4, "orm_at_end": False, "own_outcomes": True,
          "every_token": False, "advantage_from_q": True,
          "relative_ratio": 0.8, "effective_alpha": 0.4, "effective_above": 0.0, "implicit_beta": 0.05,
          "valid_fraction": 0.05,
          "orm": optimizer(num_steps=1200), "q": optimizer(num_steps=1500), "advantage": optimizer(num_steps=300, peak_lr=1e-3),
          "implicit": optimizer(num_steps=600, peak_lr=1e-3)},
      "search": search(),
      "rft": {**optimizer(num_steps=200, peak_lr=1e-3, warmup_steps=20, eval_every=50), "valid_fraction": 0.05},
      "rl": {
          **optimizer(num_steps=60, batch_size=32, peak_lr=2e-4, warmup_steps=10, clip_norm=float("inf"), eval_every=5, save_every=20,
                      log_every=1),
          "arms": ("outcome", "progress"), "lr_factor": dict.fromkeys(ARMS, 1.0), "kl_factor": dict.fromkeys(ARMS, 1.0),
          "seeds": (0,), "init_from": "rft", "verifier": "", "num_problems": -1, "group": 4, "updates": 1,
          "provers": {"prover": ""},  # of arms ARM@NAME: a free name and the path of a verifier of its Q (pav_jax/policy/arms.py)
          "alpha": 1.0, "prover": "best_of_k", "prover_k": 4, "n_mc": 4, "reward": "advantage", "outcome_last": False,
          # Rewards of those names; `uncertain` counts advantages only for tokens of at most the probability `certain`.
          "min_form": {"temperature": 0.1}, "first_error": {"min_q": 0.0, "min_ratio": 0.8},
          "implicit": {"beta": 0.05, "lr": 4e-4, "discount": 1.0}, "uncertain": False, "certain": 0.9,
          "clip": float("inf"), "baseline": "leave_one_out", "critic": False, "value_lr": 1e-3, "value_warmup": 20,
          "kl": 0.001, "kl_as": "loss", "entropy": 0.0,
          "clip_ratio": 0.0, "rows": 128, "share": 4, "parity_every": 50, "parity_tolerance": 1e-4,
          "eval_problems": -1, "eval_n": 8, "test_problems": -1, "eval_samples": 128,
          # Of how many validation problems the trees, on which the prover is looked at over the run (pav_jax/policy/lookout.py); 0 for none.
          "watch_prover": 0,
          # The arm `renewed` (pav_jax/policy/renewal.py).
          "renew_every": 50, "renew_problems": 64, "renew_steps": 100, "renew_lr": 1e-3,
          "watch": {"responses": 256, "share": 0.2, "factor": 2.0, "kl": 1.0}},
      "evaluate": {
          "checkpoint": "", "verifier": "", "kind": "q", "split": "test", "num_problems": -1, "n": 8,
          "temperature": 1.0, "top_k": 0, "top_p": 1.0, "rows": 512},
      # Provers by theory (pav_jax/evaluation/provers.py): of how many problems the trees, 0 for none; demonstrators with other dials
      # beside the run's own, as "prover: noise=.1 lure=.4", the truth of the verifier of that name.
      "report": {"responses": 4, "bootstrap_draws": 2000, "calibration_bins": 10, "tree_problems": 0, "demonstrators": ()},
  })
