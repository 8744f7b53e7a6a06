"""The paper's argument where everything is known exactly (section 3, appendices B and F); apart from the rest.

  sequence.py   a planted sub-sequence: the world, the prover of strength gamma, its values by dynamic programming
  provers.py    the same values as a prover would have them in practice: counted, noisy, learned, read otherwise
  made.py       the policy: a masked autoencoder (MADE) in Flax, and its sampler
  train.py      SFT, and RL with the effective reward, many seeds side by side
  search.py     best-of-N and beams in the same world
  trees.py      random trees, tabular softmax policies, one exact natural-policy-gradient step
  intervals.py  what is told of seeds and draws
  learning.py, searching.py, theory.py   one function per figure: config -> results
  figures.py, numbers.py, verdicts.py    results -> SVG; lines; which claims hold
  stage.py      config.figure -> results on disk -> drawing, lines, claims

Letters beyond those of pav_jax/__init__.py:

  j states of the match (how much of the planted sequence the last tokens match; done; dead)
  i seeds, or simulated runs        u hidden units                       e evaluations (not a head's width)
  x random draws: trees, resamples  a actions at a node of a tree        o nodes of a level of a tree
"""
