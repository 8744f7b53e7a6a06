"""pav_jax: process advantage verifiers in JAX, after "Rewarding Progress" (arXiv 2410.08146).

The tree is the path of the data; every folder imports only from floors below it.

  problems/    a problem, its prompt, its steps, its files
  grading/     is the answer of a response equal to the reference?    (beside problems/)
  policy/      pi: supervised fine-tuning
  rollouts/    seed responses and continuations
  values/      Q by Monte Carlo; A and best-of-K provers from Q; the paper's equations; labels of others
  verifiers/   ORM, PQV, PAV: networks that read values off a prefix
  search/      best-of-N and beams, with a ledger of tokens and FLOPs
  evaluation/  tables, figures, the page
  models/      Gemma 2 and 3, training forward and cached decoding    (floor 0)
  training/    mesh, state, step, loop, checkpoints, records          (floor 0)
  didactic/    the paper's argument where all is known exactly        (apart)

Dimensions, the letters that end the name of every array of rank >= 1:

  b rows of a batch        p problems                  n rollouts of a problem
  t tokens                 s steps                     z prefixes (s + 1; z = 0 is the bare prompt)
  m continuations          k beams                     c candidates of a beam
  v vocabulary             d width                     f feed-forward width
  l slots of a cache       h query heads               g key/value heads
  e head width             y layers                    w blocks of slots
  u nodes of a tree of prefixes

didactic/, apart from the path, has letters of its own beside these (a e i j o u x): pav_jax/didactic/__init__.py.

Words: policy (pi), prover (mu), q_pi, q_mu, advantage A = Q - Q of the step
before, effective reward Q^pi + alpha A^mu, ORM (scores whole responses), PQV
(process verifier of Q), PAV (process verifier of A^mu). Masks are bool,
weights float.

In Python (docs/how-to/library.md): load, sample, score_steps, beam_search, grade_answers. They are read
when they are first used, so that importing pav_jax imports nothing.
"""

import importlib

__all__ = ["beam_search", "grade_answers", "load", "sample", "score_steps"]


def __getattr__(name: str):
  if name in __all__:
    return getattr(importlib.import_module("pav_jax.library"), name)
  raise AttributeError(f"module 'pav_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
