"""The sampler against the training forward pass, and its laws, on a fake and on a tiny Gemma."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fakes
from fakes import A, B, C, EOS, NL, PAD
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models import decoding
from pav_jax.models.network import from_gemma
from pav_jax.problems import steps
from pav_jax.rollouts import engine
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.training import mesh as mesh_lib

PLAIN, GREEDY = sampling_lib.Sampling(), sampling_lib.Sampling(temperature=0.0)
WIDTH, NEW, SLOTS = 8, 6, 14
NETWORKS = {"chain": (fakes.CHAIN, fakes.random_chain(0)), "gemma": (fakes.GEMMA, fakes.gemma_params(0))}
DRAW = jax.jit(sampling_lib.draw, static_argnames="sampling")
HIDDEN = {name: jax.jit(network.hidden) for name, (network, _) in NETWORKS.items()}


@pytest.fixture(params=NETWORKS)
def name(request):
  return request.param


def _trajectories(seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(NL, fakes.SIZE, (3, WIDTH)).astype(np.int32), np.array([8, 5, 3], np.int32)


# Row r continues the first cut tokens of trajectory source.
SOURCE_R = np.array([0, 0, 0, 1, 1, 2, 2, 2])
CUT_R = np.array([8, 3, 1, 5, 2, 3, 3, 1])
BUDGET_R = np.array([6, 6, 5, 6, 4, 6, 0, 3])
JOBS = jobs_lib.Jobs(SOURCE_R.astype(np.int32), CUT_R.astype(np.int32), BUDGET_R.astype(np.int32),
                     np.stack([SOURCE_R, np.arange(8)], axis=1).astype(np.int32))


def _run(name, jobs=JOBS, sampling=PLAIN, rows=8, share=2, trajectories=None, **options):
  network, params = NETWORKS[name]
  token_bt, length_b = trajectories or _trajectories()
  return jobs_lib.run(network, params, token_bt, length_b, jobs, fakes.TOKENS, rows=rows, share=share, max_new=NEW,
                      sampling=sampling, seed=1, **options)


def _rows(jobs, done):
  """Prefix and continuation of each job, joined."""
  token_bt, _ = _trajectories()
  return [np.concatenate([token_bt[b, :cut], t[:n]])
          for b, cut, t, n in zip(jobs.source_r, jobs.cut_r, done.token_rt, done.length_r)]


def _padded(rows):
  token_bt = np.zeros((len(rows), SLOTS), np.int32)
  for b, row in enumerate(rows):
    token_bt[b, :len(row)] = row
  return token_bt


def test_a_shared_prefill_changes_nothing(name):
  token_bt, length_b = _trajectories()
  own_bt = np.where(np.arange(WIDTH) < CUT_R[:, None], token_bt[SOURCE_R], PAD)  # each prefix is its own trajectory
  own = _run(name, JOBS._replace(source_r=np.arange(8, dtype=np.int32)),
             trajectories=(own_bt, CUT_R.astype(np.int32)))
  shared = _run(name)
  np.testing.assert_array_equal(shared.token_rt, own.token_rt)
  np.testing.assert_allclose(shared.log_prob_rt, own.log_prob_rt, atol=1e-5)
  assert shared.length_r.max() > 2


@pytest.mark.parametrize("rows, share, jobs_per_lane", [(1, 1, 256), (3, 1, 256), (6, 3, 2), (24, 8, 256), (64, 1, 1)])
def test_rollouts_do_not_depend_on_rows_lanes_refills_or_order(name, rows, share, jobs_per_lane):
  order_r = np.random.default_rng(0).permutation(8)
  whole = _run(name)
  mixed = _run(name, jobs_lib.Jobs(*(x[order_r] for x in JOBS)), rows=rows, share=share, jobs_per_lane=jobs_per_lane)
  for field, want, have in zip(whole._fields, whole, mixed):
    # Tokens are the same; log-probabilities but for float32 sums in another order.
    np.testing.assert_allclose(want[order_r], have, rtol=0, atol=1e-4 if field == "log_prob_rt" else 0, err_msg=field)


def test_log_probs_are_the_training_forwards(name):
  network, params = NETWORKS[name]
  done = _run(name)
  token_bt = _padded(_rows(JOBS, done))
  log_prob_bt = network.log_probs(params, HIDDEN[name](params, token_bt)[:, :-1], jnp.asarray(token_bt[:, 1:]))
  for r, (cut, n) in enumerate(zip(CUT_R, done.length_r)):
    np.testing.assert_allclose(done.log_prob_rt[r, :n], log_prob_bt[r, cut - 1:cut - 1 + n], atol=1e-4)
    assert (done.log_prob_rt[r, n:] == 0).all() and (done.token_rt[r, n:] == PAD).all()


def test_greedy_is_the_argmax_of_the_training_forward(name):
  network, params = NETWORKS[name]
  done = _run(name, sampling=GREEDY)
  token_bt = _padded(_rows(JOBS, done))
  logit_btv = np.array(network.logits(params, HIDDEN[name](params, token_bt)))
  logit_btv[..., fakes.NEVER] = -np.inf
  for r, (cut, n) in enumerate(zip(CUT_R, done.length_r)):
    np.testing.assert_array_equal(done.token_rt[r, :n], logit_btv[r].argmax(-1)[cut - 1:cut - 1 + n])


def test_top_k_of_one_is_greedy():
  np.testing.assert_array_equal(_run("chain", sampling=sampling_lib.Sampling(top_k=1)).token_rt,
                                _run("chain", sampling=GREEDY).token_rt)


def test_budgets_hold_and_truncation_is_told(name):
  done = _run(name)
  assert (done.length_r <= BUDGET_R).all() and done.length_r[6] == 0
  for row_t, n, ended, budget in zip(done.token_rt, done.length_r, done.ended_r, BUDGET_R):
    assert ended == (n > 0 and row_t[n - 1] == EOS)  # EOS counts in the length, nothing follows it
    assert EOS not in row_t[:max(n - 1, 0)]
    assert ended or n == budget
  assert done.ended_r.any() and (~done.ended_r).sum() > 1


def test_a_job_that_cannot_fit_is_refused():
  for bad, message in ((JOBS._replace(cut_r=CUT_R + 1), "outside its trajectory"),
                       (JOBS._replace(cut_r=CUT_R * 0), "outside its trajectory"),
                       (JOBS._replace(budget_r=BUDGET_R + 1), "budget is outside")):
    with pytest.raises(ValueError, match=message):
      _run("chain", bad)


def test_one_compilation_for_many_lengths():
  _run("chain")
  compiled = lambda: (engine.install._cache_size(), engine.advance._cache_size())
  before = compiled()
  for count in (1, 3, 5):
    _run("chain", jobs_lib.Jobs(*(x[:count] for x in JOBS)))
  token_bt, length_b = _trajectories(1)
  _run("chain", JOBS._replace(cut_r=np.ones(8, np.int32)), trajectories=(token_bt, length_b - 1))
  assert compiled() == before


def test_never_tokens_are_never_drawn():
  logit_bv = np.zeros((400, fakes.SIZE), np.float32)
  logit_bv[:, fakes.NEVER] = 9.0
  key_b = sampling_lib.row_keys(0, np.arange(400))
  for sampling in (PLAIN, GREEDY, sampling_lib.Sampling(top_k=3, top_p=0.5)):
    token_b, log_prob_b = DRAW(jnp.asarray(logit_bv), key_b, sampling, fakes.TOKENS.never_v)
    assert not np.isin(token_b, fakes.NEVER).any()
    # The log-probability stays the model's own, over the whole vocabulary.
    np.testing.assert_allclose(log_prob_b, jax.nn.log_softmax(logit_bv[0])[A], rtol=1e-5)


def test_token_tables_close_every_spare_row():
  tokens = jobs_lib.token_tables(fakes.VOCABULARY, fakes.SIZE + 3)
  np.testing.assert_array_equal(np.flatnonzero(tokens.never_v), [0, 2, 3, 4, 11, 12, 13])
  # At the start nothing but EOS ends a step; within one a newline does, too.
  ends_vs = np.asarray(tokens.ends_cs)[tokens.class_v]
  np.testing.assert_array_equal(np.flatnonzero(ends_vs[:fakes.SIZE, 0]), [EOS])
  np.testing.assert_array_equal(np.flatnonzero(ends_vs[:fakes.SIZE, 1]), [EOS, NL])


@pytest.mark.parametrize("sampling, want_v", [
    (sampling_lib.Sampling(), [0.4, 0.3, 0.2, 0.1]),
    (sampling_lib.Sampling(temperature=0.5), [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
    (sampling_lib.Sampling(temperature=2.0), np.sqrt([0.4, 0.3, 0.2, 0.1]) / np.sqrt([0.4, 0.3, 0.2, 0.1]).sum()),
    (sampling_lib.Sampling(top_k=2), [4 / 7, 3 / 7, 0, 0]),
    (sampling_lib.Sampling(top_k=9), [0.4, 0.3, 0.2, 0.1]),
    (sampling_lib.Sampling(top_p=0.65), [4 / 7, 3 / 7, 0, 0]),
    (sampling_lib.Sampling(top_p=0.75), [4 / 9, 3 / 9, 2 / 9, 0]),
    (sampling_lib.Sampling(top_p=0.01), [1, 0, 0, 0]),
    (sampling_lib.Sampling(top_k=3, top_p=0.7), [4 / 7, 3 / 7, 0, 0]),  # of what top_k leaves: 4/9 + 3/9 >= 0.7
    (sampling_lib.Sampling(temperature=0.5, top_p=0.8), [16 / 25, 9 / 25, 0, 0]),
])
def test_frequencies_are_the_softmax(sampling, want_v):
  count = 4000
  logit_bv = jnp.broadcast_to(jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1])) + 5.0, (count, 4))
  token_b, _ = DRAW(logit_bv, sampling_lib.row_keys(3, np.arange(count)), sampling, jnp.zeros(4, bool))
  found_v = np.bincount(token_b, minlength=4) / count
  sigma_v = np.sqrt(np.array(want_v) * (1 - np.array(want_v)) / count)
  assert (np.abs(found_v - want_v) <= 4 * sigma_v + 1e-9).all(), (found_v, want_v)


@pytest.mark.parametrize("v, width", [(256_128, 464), (256_000, 500), (512, 32), (376, 47), (11, 3), (4, 2), (1, 1)])
def test_blocks_of_a_vocabulary(v, width):
  assert sampling_lib.block_width(v) == width


@pytest.mark.parametrize("v", [1, 7, 64, 376])
def test_pick_inverts_the_distribution_function(v):
  rng = np.random.default_rng(v)
  weight_bv = rng.integers(0, 3, (50, v)).astype(np.float32)
  weight_bv[:, rng.integers(v)] += 1
  uniform_b = rng.integers(0, 64, 50).astype(np.float32) / 64
  below_bv = np.cumsum(weight_bv, axis=1)
  want_b = (below_bv <= uniform_b[:, None] * below_bv[:, -1:]).sum(axis=1)
  np.testing.assert_array_equal(sampling_lib.pick(jnp.asarray(weight_bv), jnp.asarray(uniform_b)), want_b)
  # At the very end of what rounding can give, the last word of any weight.
  last_b = v - 1 - np.argmax(weight_bv[:, ::-1] > 0, axis=1)
  np.testing.assert_array_equal(sampling_lib.pick(jnp.asarray(weight_bv), jnp.ones(50)), last_b)


def test_each_draw_of_a_row_is_fresh():
  # Every token is equally likely whatever came before: two draws of one row agree one time in three.
  params = fakes.chain_params({t: {A: 1 / 3, B: 1 / 3, C: 1 / 3} for t in (A, B, C)})
  count = 900
  jobs = jobs_lib.Jobs(np.zeros(count, np.int32), np.ones(count, np.int32), np.full(count, 2, np.int32),
                       np.arange(count)[:, None].astype(np.int32))
  done = jobs_lib.run(fakes.CHAIN, params, np.array([[A]], np.int32), np.array([1]), jobs, fakes.TOKENS,
                      rows=30, share=10, jobs_per_lane=400, max_new=2, sampling=PLAIN, seed=5)
  same = (done.token_rt[:, 0] == done.token_rt[:, 1]).mean()
  assert abs(same - 1 / 3) < 4 * np.sqrt(2 / 9 / count)


def test_every_part_of_a_name_counts():
  names = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
  key_b = sampling_lib.row_keys(3, *names.T)
  plain = jax.random.key(3)
  for number in names[3]:
    plain = jax.random.fold_in(plain, number)
  data_b = [tuple(jax.random.key_data(key).tolist()) for key in (*key_b, plain, sampling_lib.row_keys(4, *names.T)[0])]
  assert data_b[0] == data_b[5] and data_b[3] == data_b[6] and len(set(data_b)) == 6


@pytest.mark.parametrize("row", [(-0.1, 0, 1.0), (1.0, -1, 1.0), (1.0, 0, 0.0), (1.0, 0, 1.1), (float("nan"), 0, 1.0)])
def test_settings_that_mean_nothing(row):
  with pytest.raises(UserError, match=r"config\.here\.(temperature|top_k|top_p) .* is "):
    sampling_lib.check(sampling_lib.Sampling(*row), "config.here")
  sampling_lib.check(GREEDY, "config.here")


@pytest.mark.parametrize("steps_at_once", [1, 2])
def test_a_blank_line_is_no_step(steps_at_once):
  """Lines with something on them, until the last of the steps: newlines alone before them do not count."""
  params = fakes.chain_params({t: {NL: 0.5, A: 0.5} for t in (NL, A)})
  rows, budget = 64, 16
  cache = decoding.begin(fakes.CHAIN.read(params, np.full((rows, 1), NL, np.int32))[1], jnp.zeros(rows, jnp.int32), budget)
  new, _ = jax.jit(lambda cache: engine.generate(
      fakes.CHAIN, params, cache, jnp.full(rows, NL), jnp.full(rows, budget), sampling_lib.row_keys(0, np.arange(rows)),
      fakes.TOKENS, max_new=budget, sampling=PLAIN, steps=steps_at_once))(cache)
  texts = [fakes.VOCABULARY.decode(t[:n]) for t, n in zip(np.asarray(new.token_bt), np.asarray(new.length_b))]
  stopped = [text for text, n in zip(texts, new.length_b) if n < budget]
  assert all(len(text.split()) == steps_at_once and text[-2:] == "a\n" for text in stopped)
  assert len(stopped) > 50 and any("\n\n" in text[1:] or text[0] == "\n" for text in stopped)


@pytest.mark.parametrize("steps_at_once", [1, 2])
def test_steps_stop_where_steps_end(steps_at_once):
  """Step by step, a response has exactly the steps that problems/steps.py finds in it."""
  params = fakes.chain_params({t: {NL: 0.35, A: 0.3, B: 0.2, EOS: 0.15} for t in (NL, A, B)})
  rows, budget, calls = 48, 12, 2 // steps_at_once
  generate = jax.jit(lambda cache, fed_b, key_b: engine.generate(
      fakes.CHAIN, params, cache, fed_b, jnp.full(rows, budget), key_b, fakes.TOKENS, max_new=budget, sampling=PLAIN,
      steps=steps_at_once))
  fed_b = np.full(rows, A, np.int32)
  found, open_b, responses = [[] for _ in range(rows)], np.ones(rows, bool), [[] for _ in range(rows)]
  for n in range(calls):
    # The chain counts what it has read and these weights do not: a cache may begin anew.
    cache = decoding.begin(fakes.CHAIN.read(params, fed_b[:, None])[1], jnp.zeros(rows, jnp.int32), budget)
    new, _ = generate(cache, fed_b, sampling_lib.row_keys(n, np.arange(rows)))
    fed_b = np.take_along_axis(np.asarray(new.token_bt), np.asarray(new.length_b)[:, None] - 1, axis=1)[:, 0]
    for b in np.flatnonzero(open_b):
      responses[b] += list(np.asarray(new.token_bt[b, :new.length_b[b]]))
      found[b].append(len(responses[b]) - 1)
      # What did not end and is within its budget stopped at a newline.
      assert new.ended_b[b] or new.length_b[b] == budget or fed_b[b] == NL
      open_b[b] = fed_b[b] == NL and not new.ended_b[b]
  for response_t, end_s in zip(responses, found):
    # All step ends of what was drawn; a call stops at the last of its steps, or at EOS.
    want_s = steps.step_ends(np.array(response_t), fakes.VOCABULARY.step_rule)
    stops_s = [s for i, s in enumerate(want_s) if (i + 1) % steps_at_once == 0 or s == len(response_t) - 1]
    np.testing.assert_array_equal(stops_s, end_s)
  assert sum(len(x) == calls for x in found) > 15 and any(x[0] == NL for x in responses)


@pytest.mark.parametrize("name", steps.RULES)
def test_every_rule_stops_where_its_steps_end(name):
  """Drawn in pieces that may be cut within a step or a token's mark: the state that is handed on knows where the text stands."""
  pieces = ("", "", "", "", "", "\n", "a", " ", "\\begin", "{", "\\end{")
  rule = steps.rule_of(name, pieces, EOS)
  tokens = fakes.TOKENS._replace(class_v=jnp.asarray(rule.class_v), next_cs=jnp.asarray(rule.next_cs), ends_cs=jnp.asarray(rule.ends_cs))
  chances = {5: 0.45, 6: 0.1, 7: 0.1, 8: 0.1, 9: 0.1, 10: 0.1, EOS: 0.05}
  params = fakes.chain_params({t: {**chances, 9: 0.6 if t == 8 else 0.1} for t in range(5, 11)})
  rows, most = 64, 3
  generate = jax.jit(lambda cache, fed_b, key_b, state_b: engine.generate(
      fakes.CHAIN, params, cache, fed_b, jnp.full(rows, most), key_b, tokens, max_new=most, sampling=PLAIN, steps=1, state_b=state_b))
  fed_b, state_b = np.full(rows, A, np.int32), np.zeros(rows, np.int32)
  responses, stops, cut, open_b = [[] for _ in range(rows)], [[] for _ in range(rows)], 0, np.ones(rows, bool)
  for n in range(8):
    cache = decoding.begin(fakes.CHAIN.read(params, fed_b[:, None])[1], jnp.zeros(rows, jnp.int32), most)
    new, _ = generate(cache, fed_b, sampling_lib.row_keys(n, np.arange(rows)), state_b)
    fed_b, state_b = np.array(new.token_bt)[np.arange(rows), np.array(new.length_b) - 1], np.array(new.state_b)
    for b in np.flatnonzero(open_b):
      responses[b] += new.token_bt[b, :new.length_b[b]].tolist()
      stops[b].append(len(responses[b]) - 1)
      ends = new.ended_b[b] or stops[b][-1] in steps.step_ends([*responses[b], A], rule)[:-1]
      assert ends or new.length_b[b] == most
      cut, open_b[b] = cut + (not ends), not new.ended_b[b]
  for response_t, stop_s in zip(responses, stops):
    assert set(steps.step_ends(response_t, rule)) <= set(stop_s)
  assert cut > 50 and sum(len(steps.step_ends(t, rule)) for t in responses) > 100


def many_jobs(mesh=None):
  """Rollouts of a Gemma whose heads divide over two devices, under the layout training has on the mesh."""
  config = dataclasses.replace(fakes.CONFIG, num_heads=4, num_kv_heads=2, vocab_size=12)
  network = from_gemma(config, scoring_id=fakes.SCORE, logit_chunk=4)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape), jnp.float32),
                        jax.eval_shape(network.init, jax.random.key(0)))
  if mesh is not None:
    params = jax.device_put(params, mesh_lib.shardings(params, mesh, architecture.SHARDING))
  token_bt = rng.integers(NL, fakes.SIZE, (12, WIDTH)).astype(np.int32)
  source_r = np.repeat(np.arange(12, dtype=np.int32), 5)
  jobs = jobs_lib.Jobs(source_r, rng.integers(1, WIDTH + 1, 60).astype(np.int32), rng.integers(1, NEW + 1, 60).astype(np.int32),
                       np.arange(60, dtype=np.int32)[:, None])
  return jobs_lib.run(network, params, token_bt, np.full(12, WIDTH), jobs,
                      jobs_lib.token_tables(fakes.VOCABULARY, 12), rows=16, share=2,
                      max_new=NEW, sampling=PLAIN, seed=2, mesh=mesh)


def write_sharded(path):
  """What the process of eight devices runs; it looks at the engine's state, too: nothing of it may be whole on a device."""
  advance, seen = engine.advance, []
  def watched(network, params, lanes, *rest, **options):
    watched_arrays = lanes.cache.keys_ywbgel[0][0], lanes.cache.prefix.values_ywigle[0][0], lanes.rows.job_b, params["embedding"], params["layers"][1]["ffn"]["down"]
    seen.append([x.size / max(shard.data.size for shard in x.addressable_shards) for x in watched_arrays])
    return advance(network, params, lanes, *rest, **options)
  engine.advance = watched
  try:
    done = many_jobs(mesh_lib.make_mesh(data=2, fsdp=2, model=2))
  finally:
    engine.advance = advance
  # Rows over data and fsdp, heads over model; weights over model alone.
  assert seen and all(parts == [8, 8, 4, 2, 2] for parts in seen), seen
  np.savez(path, **done._asdict())


def test_eight_devices_draw_what_one_draws(tmp_path):
  fakes.OnEightDevices(pathlib.Path(__file__), f"write_sharded({str(tmp_path / 'eight.npz')!r})").join()
  eight, one = np.load(tmp_path / "eight.npz"), many_jobs()
  for field, want in one._asdict().items():
    np.testing.assert_allclose(eight[field], want, atol=1e-4, err_msg=field)
  assert len(np.unique(one.length_r)) > 3
