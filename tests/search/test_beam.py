"""Beam search against the same search written plainly: no cache, no batch, one candidate at a time."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fakes
from fakes import A, B, BOS, C, EOS, NL, PAD, RIGHT, WRONG
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models import decoding
from pav_jax.models import size
from pav_jax.models.network import from_gemma
from pav_jax.problems import steps
from pav_jax.rollouts import engine
from pav_jax.rollouts import jobs
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.search import beam
from pav_jax.search import keep
from pav_jax.search import lanes
from pav_jax.search import ledger
from pav_jax.search import ranking
from pav_jax.training import mesh as mesh_lib
from pav_jax.verifiers import score

PROMPT_PT = np.array([[BOS, A, C], [BOS, C, PAD], [BOS, B, C]], np.int32)
PROMPT_LENGTH_P = np.array([3, 2, 3], np.int32)
MAX_NEW, MAX_STEP, SLOTS, SEED = 10, 4, 14, 3
PLAIN = sampling_lib.Sampling()


def _random(seed):
  """A chain whose responses have several lines: newlines are likely, EOS is not."""
  params = fakes.random_chain(seed)
  return {**params, "logit_dv": params["logit_dv"].at[:fakes.SIZE, [NL, EOS]].add(jnp.array([2.0, -1.0]))}


POLICY = beam.Player(fakes.CHAIN, _random(0))
Q, MU = beam.Player(fakes.CHAIN, fakes.random_chain(1)), beam.Player(fakes.CHAIN, fakes.random_chain(2))


def _tokens(rule):
  return fakes.TOKENS._replace(class_v=jnp.asarray(rule.class_v), next_cs=jnp.asarray(rule.next_cs), ends_cs=jnp.asarray(rule.ends_cs))


@jax.jit
def _steps(params, token_bt, length_b, state_b, budget_b, key_b, tokens):
  cache = decoding.begin(fakes.CHAIN.read(params, token_bt)[1], length_b - 1, MAX_STEP)
  last_b = jnp.take_along_axis(token_bt, length_b[:, None] - 1, axis=1)[:, 0]
  return engine.generate(fakes.CHAIN, params, cache, last_b, budget_b, key_b, tokens, max_new=MAX_STEP,
                         sampling=PLAIN, steps=1, state_b=state_b)[0]


def _q(player, tokens):
  """The verifier's sigmoid at the end of a whole row, in numpy."""
  hidden_d = np.concatenate([np.eye(fakes.SIZE)[tokens[-1]], np.bincount(tokens, minlength=fakes.SIZE)])
  return 1 / (1 + np.exp(-hidden_d @ np.asarray(player.params["score_d"], float)))


def _advantage(prover, prompt, parent, child):
  both = lambda x: [_q(player, prompt + x) for player in (Q, MU)]
  if prover.kind == "advantage":
    return 2 * both(child)[1] - 1
  if prover.kind == "q":
    return both(child)[1] - both(parent)[1]
  return (1 - both(parent)[0]) ** prover.k - (1 - both(child)[0]) ** prover.k


def _plainly(p, name, prover, alpha, width, candidates, max_rounds, distinct, rule):
  """(finished candidates in order, rounds, tokens drawn, FLOPs of the policy) for one problem."""
  prompt = list(PROMPT_PT[p, :PROMPT_LENGTH_P[p]])
  items, pool, drawn = [[] for _ in range(width)], [], 0
  flops = fakes.CHAIN.flops(0, len(prompt) - 1)
  rounds = 0
  while items and rounds < max_rounds:
    parents = [item for item in items for _ in range(candidates)]
    rows = [prompt + item for item in parents]
    rows += [prompt] * (width * candidates - len(rows))
    token_bt = np.array([row + [PAD] * (SLOTS - len(row)) for row in rows], np.int32)
    length_b = np.array([len(row) for row in rows], np.int32)
    count = len(rows)
    keys = sampling_lib.row_keys(SEED, np.full(count, name), np.full(count, rounds), np.arange(count))
    # A parent may end within a step that was cut at MAX_STEP.
    state = lambda item: functools.reduce(lambda s, token: rule.next_cs[rule.class_v[token], s], item, 0)
    state_b = np.array([state(item) for item in parents] + [0] * (len(rows) - len(parents)), np.int32)
    step = _steps(POLICY.params, token_bt, length_b, state_b,
                  np.minimum(MAX_STEP, MAX_NEW - length_b + len(prompt)).astype(np.int32), keys, _tokens(rule))
    scored = []
    for i, parent in enumerate(parents):
      new = list(np.asarray(step.token_bt[i, :step.length_b[i]]))
      child = parent + new
      start = len(prompt) + len(parent) - 1
      drawn, flops = drawn + len(new), flops + fakes.CHAIN.flops(start, start + len(new), len(new))
      score = _q(Q, prompt + child) + (alpha * _advantage(prover, prompt, parent, child) if alpha else 0)
      copy = distinct and any(child == other for _, _, other in scored)
      scored.append((copy, -score, child))
    kept = [child for _, _, child in sorted(scored, key=lambda x: x[:2])[:width - len(pool)]]
    pool += [child for child in kept if child[-1] == EOS or len(child) >= MAX_NEW]
    items = [child for child in kept if child[-1] != EOS and len(child) < MAX_NEW][:width - len(pool)]
    rounds += 1
  return pool, rounds, drawn, flops


def _search(prover, alpha, verifiers, width=2, candidates=2, max_rounds=9, rows=12, distinct=True, name_p=(5, 6, 7),
            rule=fakes.VOCABULARY.step_rule, by="effective", **way):
  """verifiers: Q^pi's, and the prover's if there is one."""
  return beam.search(
      POLICY, beam.Judges(*verifiers), PROMPT_PT, PROMPT_LENGTH_P, np.array(name_p, np.int32), _tokens(rule),
      way=beam.Way(ranking.Ranking(by, prover, alpha), width=width, candidates=candidates, distinct=distinct, **way),
      max_rounds=max_rounds, max_new=MAX_NEW, max_step=MAX_STEP, sampling=PLAIN, seed=SEED, rows=rows)


@pytest.mark.parametrize("prover, alpha, distinct, rows, steps_end", [
    (ranking.Prover(), 0.0, True, 12, "newline"), (ranking.Prover("best_of_k", 4), 0.7, False, 12, "newline"),
    (ranking.Prover("best_of_k", 4), 0.7, True, 5, "newline"), (ranking.Prover("q"), 2.0, True, 12, "newline"),
    (ranking.Prover("advantage"), 2.0, True, 12, "newline"), (ranking.Prover("best_of_k", 4), 0.7, False, 12, "blank")])
def test_search_is_what_it_says(prover, alpha, distinct, rows, steps_end):
  verifiers, rule = [Q] if prover.kind == "best_of_k" else [Q, MU], steps.rule_of(steps_end, fakes.VOCABULARY.pieces, EOS)
  found = _search(prover, alpha, verifiers, rows=rows, distinct=distinct, rule=rule)
  rounds = []
  for p, name in enumerate((5, 6, 7)):
    pool, count, drawn, flops = _plainly(p, name, prover, alpha, 2, 2, 9, distinct, rule)
    rounds.append(count)
    have = [list(t[:n]) for t, n in zip(found.pool_token_pkt[p], found.pool_length_pk[p]) if n]
    assert have == pool
    prompt = list(PROMPT_PT[p, :PROMPT_LENGTH_P[p]])
    best = max(pool, key=lambda x: _q(Q, prompt + x))
    assert list(found.token_pt[p, :found.length_p[p]]) == best
    assert found.q_p[p] == pytest.approx(_q(Q, prompt + best), abs=1e-5)
    assert found.cost.generated_p[p] == drawn
    assert found.cost.scored_p[p] == len(verifiers) * (drawn + len(prompt))
    assert found.cost.prompt_p[p] == len(prompt)
    assert found.cost.policy_flops_p[p] == flops
  assert found.rounds == max(rounds) > 2


def test_the_set_score_decides():
  """Regression: a search whose setting changes nothing, or that scores by something else than what is set."""
  pools = [_search(ranking.Prover(kind), alpha, [Q, MU]).pool_token_pkt.tolist()
           for kind, alpha in (("best_of_k", 0.0), ("q", 2.0), ("advantage", 2.0))]
  assert pools[0] != pools[1] != pools[2] != pools[0]


@pytest.mark.parametrize("prover, verifiers", [(ranking.Prover("q"), [Q, MU]), (ranking.Prover("best_of_k", 4), [Q])])
def test_what_is_kept_of_the_finished_makes_other_choices(prover, verifiers):
  """The verifiers' values at their ends and the effective reward of their last steps, in plain numpy."""
  found = _search(prover, 2.0, verifiers)
  values = lambda tokens: np.array([[*(_q(player, tokens) for player in verifiers), *[np.nan] * (2 - len(verifiers))]])
  for p in range(3):
    prompt = list(PROMPT_PT[p, :PROMPT_LENGTH_P[p]])
    for k, length in enumerate(found.pool_length_pk[p]):
      if not length:
        assert found.pool_score_pk[p, k] == -1 and (found.pool_raw_pkv[p, k] == -1).all()
        continue
      tokens = list(found.pool_token_pkt[p, k, :length])
      np.testing.assert_allclose(found.pool_raw_pkv[p, k], values(prompt + tokens)[0], atol=1e-5)
      # A step that is cut at MAX_STEP goes on as the next one: the parent is a place of these.
      parents = [prompt + tokens[:n] for n in range(max(0, length - MAX_STEP), length)]
      rank = ranking.Ranking("effective", prover, 2.0)
      want = [ranking.candidate_scores(values(prompt + tokens), values(parent), rank)[0] for parent in parents]
      assert np.abs(np.array(want) - found.pool_score_pk[p, k]).min() < 1e-5
  q_p, effective_p, mu_p = (beam.chosen(found, by) for by in beam.CHOICES)
  at = np.arange(3)
  np.testing.assert_array_equal(found.pool_token_pkt[at, q_p], found.token_pt)
  np.testing.assert_array_equal(found.pool_score_pk[at, effective_p], found.pool_score_pk.max(axis=1))
  if len(verifiers) > 1:
    np.testing.assert_array_equal(found.pool_raw_pkv[at, mu_p, 1], found.pool_raw_pkv[..., 1].max(axis=1))


def test_rounds_end():
  found = _search(ranking.Prover(), 0.0, [Q], max_rounds=1)
  assert found.rounds == 1
  open_p = found.length_p == 0
  assert open_p.any() and (found.q_p[open_p] == -1).all() and (found.pool_length_pk[open_p] == 0).all()
  assert (found.cost.generated_p <= 4 * MAX_STEP).all()


def test_rows_that_hold_no_beam():
  with pytest.raises(UserError, match="3 rows are too few for a beam of 2 with 2 candidates"):
    _search(ranking.Prover(), 0.0, [Q], rows=3)


def test_one_beam_with_one_candidate_is_plain_sampling():
  rows = {C: {A: 0.6, B: 0.4}, A: {NL: 1}, B: {NL: 0.5, A: 0.5}, NL: {RIGHT: 0.4, WRONG: 0.3, A: 0.3},
          RIGHT: {EOS: 1}, WRONG: {EOS: 1}}
  want = {}
  def walk(tokens, p):
    if tokens and (tokens[-1] == EOS or len(tokens) == 6):
      want[tuple(tokens)] = p
      return
    for token, chance in rows[tokens[-1] if tokens else C].items():
      walk([*tokens, token], p * chance)
  walk([], 1.0)
  count = 1000
  found = beam.search(
      beam.Player(fakes.CHAIN, fakes.chain_params(rows)), beam.Judges(Q), np.tile([[BOS, C]], (count, 1)).astype(np.int32),
      np.full(count, 2, np.int32), np.arange(count, dtype=np.int32), fakes.TOKENS, way=beam.Way(width=1, candidates=1),
      max_rounds=20, max_new=6, max_step=3, sampling=PLAIN, seed=0, rows=count)
  responses = [tuple(t[:n].tolist()) for t, n in zip(found.token_pt, found.length_p)]
  assert set(responses) <= set(want)
  for response, p in want.items():
    assert abs(responses.count(response) / count - p) < 4 * np.sqrt(p * (1 - p) / count), response
  np.testing.assert_array_equal(found.cost.generated_p, found.length_p)


def test_scores_of_the_papers_example():
  # Fig. 2a. alpha = 0 is Q itself; 'advantage' verifiers say (1 + A) / 2; k = 1 makes the policy its own prover.
  q_r = np.array([0.55, 0.50, 0.70, 0.50, 0.35, 0.25])
  parent_r = np.array([0.6, 0.6, 0.6, 0.3, 0.3, 0.3])
  want_r = [0.525, 0.45, 0.75, 0.60, 0.375, 0.225]
  both = lambda x_r, y_r: np.stack([x_r, y_r], axis=1)
  score = lambda raw_rv, parent_rv, prover, alpha=0.5: ranking.candidate_scores(
      raw_rv, parent_rv, ranking.Ranking("effective", prover, alpha))
  np.testing.assert_allclose(score(q_r[:, None], parent_r[:, None], ranking.Prover("best_of_k", 1)), want_r)
  np.testing.assert_allclose(score(both(q_r, q_r), both(0 * q_r, parent_r), ranking.Prover("q")), want_r)
  np.testing.assert_allclose(score(both(q_r, (1 + q_r - parent_r) / 2), both(q_r, q_r), ranking.Prover("advantage")), want_r)
  np.testing.assert_array_equal(score(q_r[:, None], parent_r[:, None], ranking.Prover(), 0.0), q_r)
  np.testing.assert_allclose(score(q_r[:1, None], parent_r[:1, None], ranking.Prover("best_of_k", 2)),
                             [0.55 + 0.5 * (0.7975 - 0.84)])
  np.testing.assert_array_equal(keep.best(np.array(want_r), 2, None), [2, 3])


def test_the_best_are_kept():
  score_c = np.array([0.3, 0.9, 0.9, 0.5, 0.9])
  np.testing.assert_array_equal(keep.best(score_c, 3, None), [1, 2, 4])
  np.testing.assert_array_equal(keep.best(score_c, 3, list("abbcb")), [1, 3, 0])
  np.testing.assert_array_equal(keep.best(score_c, 4, list("abbcb")), [1, 3, 0, 2])
  np.testing.assert_array_equal(keep.best(score_c, 9, list("abcde")), [1, 2, 4, 3, 0])
  assert len(keep.best(score_c, 0, None)) == 0


def test_a_step_cut_at_its_limit_ends_at_the_next_newline():
  """Regression: after `a a a`, cut at 3 tokens, a newline was taken for a blank line before the next step."""
  rows = {C: {A: 1}, A: {A: 0.5, NL: 0.5}, NL: {RIGHT: 1}, RIGHT: {EOS: 1}}
  count = 64
  found = beam.search(
      beam.Player(fakes.CHAIN, fakes.chain_params(rows)), beam.Judges(Q), np.tile([[BOS, C]], (count, 1)).astype(np.int32),
      np.full(count, 2, np.int32), np.arange(count, dtype=np.int32), fakes.TOKENS, way=beam.Way(width=1, candidates=1),
      max_rounds=2, max_new=12, max_step=3, sampling=PLAIN, seed=0, rows=count)
  # Two rounds are enough for a line of up to two letters and the answer; three letters are cut, and the newline that
  # follows ends the second round.
  answered = [list(t[:n]) for t, n in zip(found.token_pt, found.length_p) if n]
  assert answered and all(t.count(A) < 3 for t in answered)
  assert {4, 6} <= set(found.cost.generated_p[found.length_p == 0])


def test_costs_add_up():
  flops = lambda start, stop, count=0: size.forward_flops(fakes.CONFIG, start, stop, count)
  drawn = lambda start_r, new_r: ledger.drawn(flops, np.array([0, 1, 1]), np.array(start_r), np.array(new_r), 3)
  pieces = drawn([4, 5, 5], [3, 2, 0]) + drawn([7, 7, 5], [2, 4, 1])
  whole = drawn([4, 5, 5], [5, 6, 1])
  for have_p, want_p in zip(pieces, whole):
    np.testing.assert_array_equal(have_p, want_p)
  np.testing.assert_array_equal(whole.generated_p, [5, 7, 0])
  # Reading the prompt and drawing n tokens reads all but the last one.
  total = ledger.prompts(flops, np.array([4, 5, 6]), verifier=False) + drawn([4, 5, 5], [5, 6, 0])
  np.testing.assert_array_equal(total.flops_p, [flops(0, 8, 5), flops(0, 10, 6), flops(0, 5)])
  np.testing.assert_array_equal(total.tokens_p, [9, 11, 6])
  read = (ledger.prompts(flops, np.array([4, 5, 6]), verifier=True)
          + ledger.scored(flops, np.array([0, 1]), np.array([4, 5]), np.array([5, 6]), 3))
  np.testing.assert_array_equal(read.verifier_flops_p, [flops(0, 9), flops(0, 11), flops(0, 6)])
  np.testing.assert_array_equal(read.scored_p, [9, 11, 6])
  assert not read.policy_flops_p.any() and not total.verifier_flops_p.any()


def many_beams(mesh=None):
  """(Found, scores of its responses' prefixes) of 9 problems by Gemmas whose heads divide over two devices, laid out as restored."""
  config = dataclasses.replace(fakes.CONFIG, num_heads=4, num_kv_heads=2, vocab_size=12)
  network, rng = from_gemma(config, scoring_id=fakes.SCORE, logit_chunk=4), np.random.default_rng(0)
  def player():
    params = jax.tree.map(lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape), jnp.float32),
                          jax.eval_shape(network.init, jax.random.key(0)))
    layout = None if mesh is None else mesh_lib.shardings(params, mesh, architecture.SHARDING)
    return beam.Player(network, params if mesh is None else jax.device_put(params, layout))
  policy, judge = player(), player()
  prompt_pt, length_p = rng.integers(NL + 1, fakes.SIZE, (9, 4)).astype(np.int32), rng.integers(2, 5, 9).astype(np.int32)
  found = beam.search(policy, beam.Judges(judge), prompt_pt, length_p, np.arange(9, dtype=np.int32),
                      jobs.token_tables(fakes.VOCABULARY, 12), way=beam.Way(width=2, candidates=2, distinct=True), max_rounds=4,
                      max_new=MAX_NEW, max_step=MAX_STEP, sampling=PLAIN, seed=1, rows=24, mesh=mesh)
  row_b = np.flatnonzero(found.length_p)
  end_bz = np.stack([np.full(len(row_b), -1), found.length_p[row_b] - 1], axis=1)
  return found, score.score_responses(network, judge.params, prompt_pt, length_p, row_b, found.token_pt[row_b], found.length_p[row_b],
                                      end_bz, rows_per_call=8, mesh=mesh)


def write_sharded(path):
  """What the process of eight devices runs; a beam's lanes must lie on their part of the mesh alone."""
  expand, seen = lanes.expand, []
  def watched(networks, params, prefixes, *rest, **options):
    seen.append([x.size / max(shard.data.size for shard in x.addressable_shards) for x in jax.tree.leaves(prefixes)])
    return expand(networks, params, prefixes, *rest, **options)
  lanes.expand = watched
  try:
    found, score_bz = many_beams(mesh_lib.make_mesh(data=2, fsdp=2, model=2))
  finally:
    lanes.expand = expand
  assert seen and all(parts == 8 for call in seen for parts in call), seen
  np.savez(path, score_bz=score_bz, **{name: x for name, x in found._asdict().items() if name != "cost"})


def test_eight_devices_find_what_one_finds(tmp_path):
  fakes.OnEightDevices(pathlib.Path(__file__), f"write_sharded({str(tmp_path / 'eight.npz')!r})").join()
  eight, (one, score_bz) = np.load(tmp_path / "eight.npz"), many_beams()
  np.testing.assert_array_equal(eight["token_pt"], one.token_pt)
  np.testing.assert_array_equal(eight["pool_token_pkt"], one.pool_token_pkt)
  np.testing.assert_allclose(eight["q_p"], one.q_p, atol=1e-5)
  np.testing.assert_allclose(eight["score_bz"], score_bz, atol=1e-5)
  assert (one.length_p > 0).sum() >= 5 and len(np.unique(one.length_p)) > 2


def test_beams_begin_on_parts_in_turn():
  """Two lanes a beam; part 0 has room for one, part 1 for none, part 2 for two; three beams are to begin, two a part at most."""
  free = [np.array([0, 3]), np.array([1]), np.array([0, 1, 2, 3])]
  problem_jb, lane_jbw = lanes.begin(free, 7, 3, 2, 2, absent=9)
  assert problem_jb.tolist() == [[7, -1], [-1, -1], [8, 9]]
  assert lane_jbw.tolist() == [[[0, 3], [9, 9]], [[9, 9], [9, 9]], [[0, 1], [2, 3]]]
  assert [len(mine_i) for mine_i in free] == [0, 1, 0]


def test_every_part_has_room_for_a_beam():
  """The paper's widest beam (128 of 3 candidates) on a slice: 768 rows are 256 lanes, 16 on each of 16 parts."""
  assert lanes.lanes_of(768, 3, 128, 1) == 256 and lanes.lanes_of(768, 3, 8, 16) == 16 and lanes.lanes_of(768, 3, 128, 16) == 128
  with pytest.raises(UserError, match="768 rows are too few for a beam of 257"):
    lanes.lanes_of(768, 3, 257, 1)
