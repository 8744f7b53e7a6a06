"""Rows of the report: goldens by hand, the law of equal compute, intervals against the truth."""

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.evaluation import intervals
from pav_jax.evaluation import tables
from pav_jax.evaluation import verdicts

# Two problems, one seed, four samples. Problem 0: answers A A B B, B is right and
# the ORM knows it; problem 1: only the last is right, and the ORM likes the second.
RIGHT = np.array([[0, 0, 1, 1], [0, 0, 0, 1]], bool)
ANSWER = np.array([[0, 0, 1, 1], [0, 1, -1, 2]])
ORM = np.array([[.1, .2, .9, .3], [.1, .8, .2, .5]])


def sample_records(seeds=1):
  """Prompts of 10 tokens, responses of 4; a token is 2 FLOPs to the policy, 1 to the verifier."""
  tile = lambda x: np.tile(x, (seeds,) + (1,) * (x.ndim - 1))
  return {
      "seed_p": np.repeat(np.arange(seeds), 2), "problem_p": tile(np.arange(2)), "right_pn": tile(RIGHT),
      "answer_pn": tile(ANSWER), "length_pn": tile(np.full((2, 4), 4)), "orm_pn": tile(ORM),
      "q_pn": tile(1 - ORM), **{f"pav{how}_pn": tile(RIGHT.astype(float)) for how in ("", "_last", "_mean")},
      "pav_min_pn": tile(ORM), "policy_flops_pn": tile(np.full((2, 4), 8.0)),
      "verifier_flops_pn": tile(np.full((2, 4), 4.0)), "prompt_length_p": tile(np.full(2, 10)),
      "policy_prompt_flops_p": tile(np.full(2, 20.0)), "verifier_prompt_flops_p": tile(np.full(2, 10.0))}


def beam_records(seeds=1, widths=(1, 2), methods=("q_beam", "pav_beam")):
  """The PAV beam is always right, the Q beam on problem 1 alone; both cost 35 * width FLOPs, 2 in 3 the policy's."""
  cells = [(m, w, s) for s in range(seeds) for w in widths for m in methods for _ in range(2)]
  method, width, seed = (np.array(x) for x in zip(*cells))
  is_pav = np.char.startswith(method, "pav")
  return {
      "method_p": method, "width_p": width, "seed_p": seed, "right_p": is_pav | (np.arange(len(seed)) % 2 == 1),
      "passed_p": np.ones(len(seed), bool), "prompt_p": np.full(len(seed), 10.0), "generated_p": 6.0 * width,
      "scored_p": 10 + 6.0 * width, "policy_flops_p": 70 / 3 * width, "verifier_flops_p": 35 / 3 * width}


@pytest.fixture
def search():
  return tables.Search(sample_records(), beam_records(), 200)


@pytest.mark.parametrize("method, n, accuracy", [
    ("pass_at_n", 2, (5 / 6 + 1 / 2) / 2),  # 1 - C(2,2)/C(4,2), 1 - C(3,2)/C(4,2)
    ("pass_at_n", 4, 1.0),
    ("majority", 4, 0.0),  # a tie and three of one: the earliest answer, wrong in both
    ("weighted_vote", 4, 0.5),  # problem 0: B has 1.2 against .3; problem 1: .8 is wrong
    ("orm_best_of_n", 4, 0.5),
    ("orm_best_of_n", 2, (5 / 6 + 1 / 3) / 2),  # all but A A; B with neither of the two better
    ("orm_best_of_n", 3, (1 + 1 / 4) / 2),
    ("q_best_of_n", 4, 0.0),
    ("pav_best_of_n", 4, 1.0)])
def test_accuracies(search, method, n, accuracy):
  assert search.row(method, n)["accuracy"] == pytest.approx(accuracy)


def test_costs(search):
  row = search.row("orm_best_of_n", 3)
  #                    prompt once, three responses of 4
  assert {k: row[k] for k in ("prompt_tokens", "generated_tokens", "verifier_tokens", "policy_flops",
                              "verifier_flops", "tokens", "flops", "problems", "seeds")} == {
      "prompt_tokens": 10, "generated_tokens": 12, "verifier_tokens": 22, "policy_flops": 20 + 24,
      "verifier_flops": 10 + 12, "tokens": 22, "flops": 66, "problems": 2, "seeds": 1}
  for method in ("pass_at_n", "majority"):
    row = search.row(method, 3)
    assert (row["verifier_tokens"], row["verifier_flops"], row["flops"]) == (0, 0, 44)


def test_readings_are_set_against_the_orm_on_the_same_samples(search):
  rows = {(r["method"], r["n"]): r for r in search.readings()}
  assert list(rows) == [(f"{m}_best_of_n", n) for m in ("q", "pav_last", "pav_mean", "pav_min") for n in (2, 4)]
  assert [rows[f"{m}_best_of_n", 4]["difference"] for m in ("q", "pav_last", "pav_mean", "pav_min")] == [-0.5, 0.5, 0.5, 0.0]
  # Any right one of two wins: Pass@2, (5/6 + 1/2) / 2; the ORM has (5/6 + 1/3) / 2.
  assert rows["pav_last_best_of_n", 2]["difference"] == pytest.approx(1 / 12)
  sentences = verdicts.sentences(search)["PAV as ORM: whole responses reranked by process scores"]
  assert len(sentences) == 4 and sentences[3].startswith("At N = 4, on the same samples: PAV best-of-4 by the min reward .500 ")


def test_records_of_an_earlier_version_are_refused():
  records = sample_records()
  del records["pav_min_pn"]
  with pytest.raises(UserError, match="search/samples holds no pav_min_pn: it is an earlier version's; remove it"):
    tables.samples_of(records)


def test_beams_are_rows_with_their_oracle(search):
  rows = {(r["method"], r["n"]): r for r in search.rows()}
  assert {m for m, _ in rows} == {*tables.INDEPENDENT, "q_beam", "q_beam_pass", "pav_beam", "pav_beam_pass"}
  assert [n for m, n in rows if m == "majority"] == [1, 2, 4]
  assert [rows[m, 2]["accuracy"] for m in ("q_beam", "q_beam_pass", "pav_beam")] == [0.5, 1.0, 1.0]
  assert rows["pav_beam", 2]["flops"] == pytest.approx(70)
  assert rows["pav_beam", 2]["tokens"] == 22


def test_seeds_and_problems_keep_their_places():
  records, rng = sample_records(3), np.random.default_rng(0)
  records["right_pn"] = rng.random((6, 4)) < 0.5
  shuffled = rng.permutation(6)
  mixed = tables.samples_of({k: v[shuffled] for k, v in records.items()})
  for s in range(3):
    np.testing.assert_array_equal(mixed.right_spn[s], records["right_pn"][2 * s:2 * s + 2])
  beams = beam_records(2)
  beams["right_p"] = np.arange(16) < 8  # right with seed 0 alone
  accuracy_ps = {(c.method, c.n): c for c in tables.beam_cells(beams)}["pav_beam", 2].accuracy_ps
  np.testing.assert_array_equal(accuracy_ps, [[1, 0], [1, 0]])


def test_best_of_one_is_the_policy_and_pass_at_n_grows():
  records, rng = sample_records(), np.random.default_rng(1)
  count = 30
  records = {k: np.resize(v, (count, *v.shape[1:])) for k, v in records.items()} | {"problem_p": np.arange(count)}
  records["right_pn"] = rng.random((count, 4)) < 0.4
  records["answer_pn"] = np.where(records["right_pn"], 0, rng.integers(1, 3, (count, 4)))
  for key in ("orm_pn", "q_pn", "pav_pn", "pav_last_pn", "pav_mean_pn", "pav_min_pn"):
    records[key] = rng.random((count, 4))
  search = tables.Search(records, beam_records(), 10)
  for method in (*tables.INDEPENDENT, *tables.READINGS):
    assert search.row(method, 1)["accuracy"] == pytest.approx(records["right_pn"].mean()), method
  accuracies = [search.row("pass_at_n", n)["accuracy"] for n in range(1, 5)]
  assert accuracies == sorted(accuracies) and accuracies[0] < accuracies[-1]
  for method in tables.INDEPENDENT:
    assert search.row(method, 4)["accuracy"] <= accuracies[-1]


@pytest.mark.parametrize("by", ["flops", "tokens"])
@pytest.mark.parametrize("method", ["majority", "orm_best_of_n"])
def test_equal_compute_is_the_nearest_from_above(search, method, by):
  cost = lambda n: getattr(tables.independent_costs(search.samples, method, n), by)
  for limit in [0.5, cost(1), cost(2), cost(5), *np.random.default_rng(2).uniform(1, 3000, 50)]:
    n = tables.smallest_n(search.samples, method, by, limit)
    assert cost(n) >= limit
    assert n == 1 or cost(n - 1) < limit
  assert tables.smallest_n(search.samples, method, by, cost(5)) == 5


def test_comparisons(search):
  rows = {(r["width"], r["method"]): r for r in search.comparisons("flops")}
  # Width 2 costs 70: ORM 30 + 12 N >= 70 at N = 4 (78); majority 20 + 8 N at N = 7, and 4 were drawn.
  orm, majority = rows[2, "orm_best_of_n"], rows[2, "majority"]
  assert (orm["n"], orm["reached"], orm["accuracy"], orm["difference"]) == (4, True, 0.5, 0.5)
  assert orm["ratio"] == pytest.approx(78 / 70)
  assert (majority["n"], majority["reached"], majority["accuracy"], majority["difference"]) == (7, False, None, None)
  assert rows[2, "q_beam"]["n"] == 2
  equal_n = {(r["width"], r["method"]): r["n"] for r in search.comparisons("n")}
  assert all(n == width for (width, _), n in equal_n.items())
  for by in ("flops", "tokens"):
    assert all(r["ratio"] >= 1 for r in search.comparisons(by) if r["method"] in tables.INDEPENDENT)


def _difference(low, mean, high):
  return {"difference": mean, "difference_low": low, "difference_high": high}


@pytest.mark.parametrize("low, mean, high, words", [
    (.01, .1, .2, "X wins"), (-.01, .1, .2, "X does not win: the interval holds 0"),
    (0, 0, 0, "X does not win: the interval holds 0"), (-.2, -.1, -.01, "X does not win: it loses")])
def test_a_win_is_an_interval_above_zero(low, mean, high, words):
  assert verdicts.outcome(_difference(low, mean, high), "X") == words


def test_verdicts_say_when_the_aim_is_reached_and_when_samples_are_too_few():
  records = sample_records()
  count = 40
  records = {k: np.resize(v, (count, *v.shape[1:])) for k, v in records.items()} | {"problem_p": np.arange(count)}
  beams = {k: np.repeat(v[::2], count) for k, v in beam_records(widths=(2, 8)).items()}
  found = verdicts.sentences(tables.Search(records, beams, 200))
  first, second = found["PAV beam against ORM best-of-N at equal compute"]
  assert "ORM best-of-4 .500 " in first and "+50.0 points" in first and first.endswith("aim of 8 points is reached.")
  assert "no comparison: ORM best-of-N needs N = 21, and 4 samples were drawn" in second and "reached" not in second
  caught = found["The compute that ORM best-of-N needs for the beam's accuracy"]
  assert caught[0].endswith("at no N up to 4, where it has 1.11 times its compute.")
  beams["right_p"] = np.zeros_like(beams["right_p"])
  lost = verdicts.sentences(tables.Search(records, beams, 200))["PAV beam against ORM best-of-N at equal compute"][0]
  assert "PAV beam does not win: it loses; the aim of 8 points is not reached." in lost


def test_intervals_cover_the_truth_about_as_often_as_they_say():
  rng, truth, trials = np.random.default_rng(0), 0.3, 300
  covered = 0
  for _ in range(trials):
    _, low, high = intervals.over_problems((rng.random((120, 1)) < truth).astype(float), draws=300)
    covered += low <= truth <= high
  assert 0.90 <= covered / trials <= 0.98


def test_intervals_of_what_does_not_vary_have_no_width():
  assert intervals.over_problems(np.ones((7, 2)), draws=50) == pytest.approx((1, 1, 1))
  assert intervals.over_problems(np.zeros((7, 2)), draws=50) == (0, 0, 0)
  same_ps = (np.random.default_rng(0).random((9, 2)) < 0.5).astype(float)
  assert intervals.paired(same_ps, same_ps, draws=50) == (0, 0, 0)
  # Both always differ by a half: the noise of the problems is paired away.
  assert intervals.paired(same_ps / 2 + 0.5, same_ps / 2, draws=50) == pytest.approx((0.5, 0.5, 0.5))


def test_other_final_choices_are_rows_of_their_own():
  """Of the same search: only where a prover was added, by its Q only where it says one; not beams beside which others are set."""
  records = beam_records()
  is_pav = np.char.startswith(records["method_p"], "pav")
  records |= {"right_by_effective_p": ~records["right_p"], "right_by_prover_p": np.zeros(len(is_pav), bool)}
  for kind, choices in (("best_of_k", {"_by_effective"}), ("q", {"_by_effective", "_by_prover"})):
    search = tables.Search(sample_records(), records | {"prover_p": np.where(is_pav, kind, "")}, 200)
    rows = {(row["method"], row["n"]): row for row in search.rows()}
    assert {m for m, _ in rows if tables.is_choice(m)} == {f"pav_beam{choice}" for choice in choices}
    assert rows["pav_beam_by_effective", 2]["accuracy"] == 0 and rows["pav_beam", 2]["accuracy"] == 1
    assert rows["pav_beam_by_effective", 2]["flops"] == rows["pav_beam", 2]["flops"]
    assert [m for m, _ in search.pav_beams()] == ["pav_beam", "pav_beam"]
  assert tables.name_of("pav_beam_q_by_prover", 8) == "PAV beam (q) of 8, chosen by the prover's Q"


def test_choices_of_later_records_are_there_where_they_are_numbers():
  records = beam_records(methods=("q_beam", "particles_progress@strong"))
  particles = np.char.startswith(records["method_p"], "particles")
  nothing = np.full(len(particles), np.nan)
  records |= {"prover_p": np.where(particles, "strong", ""), "right_by_q_p": nothing, "right_by_prover_p": nothing,
              "right_by_effective_p": np.where(particles, 0.0, np.nan), "right_by_draw_p": np.where(particles, 0.25, np.nan)}
  search = tables.Search(sample_records(), records, 200)
  assert [m for m, n in search.beams if n == 1] == [
      "q_beam", "q_beam_pass", *(f"particles_progress@strong{x}" for x in ("", "_pass", "_by_effective", "_by_draw"))]
  assert search.row("particles_progress@strong_by_draw", 2)["accuracy"] == 0.25
  assert tables.name_of("particles_progress@strong_by_draw", 2) == "particles by progress (strong) of 2, drawn at random"
  assert [tables.name_of(m, 4) for m in ("q_subtrees", "prover_q_beam@weak", "pav_best_of_n")] == [
      "Q subtrees of 4", "prover's Q beam (weak) of 4", "PAV best-of-4"]


def test_arms_are_set_beside_a_beam_at_no_less_compute():
  """q_beam costs 35 FLOPs a place, the others by hand: the cheapest width that costs as much, and none if none does."""
  records = beam_records(widths=(1, 2, 4), methods=("q_beam", "pav_beam@strong", "prover_q_beam@strong", "prover_q_beam@exact"))
  costs = {"q_beam": 35, "pav_beam@strong": 50, "prover_q_beam@strong": 49, "prover_q_beam@exact": 50}
  flops_p = np.array([costs[m] * w for m, w in zip(records["method_p"], records["width_p"])])
  records |= {"policy_flops_p": flops_p - 1.0, "verifier_flops_p": np.ones(len(flops_p)), "right_by_effective_p": np.where(
      records["method_p"] == "pav_beam@strong", 0.5, np.nan)}
  labels = {"q": {"pi/rollouts": 100, "pi/values": 20}, "orm": {"pi/rollouts": 100}, "strong": {"mu/rollouts": 7, "mu/values": 3}}
  search = tables.Search(sample_records(), records, 200, labels)
  rows = {(r["method"], r["width"]): r for r in search.against_arms()}
  assert {m: [rows[m, w].get("n") for w in (1, 2, 4)] for m in dict.fromkeys(m for m, _ in rows)} == {
      "q_beam": [2, 4, None], "pav_beam@strong_by_effective": [1, 2, 4], "prover_q_beam@strong": [2, 4, None],
      "prover_q_beam@exact": [1, 2, 4]}
  one = rows["q_beam", 2]
  assert (one["ratio"], one["difference"], one["reached"]) == (1.4, 0.5, True)
  assert rows["q_beam", 4] | {"label_tokens": 120, "reached": False, "accuracy": None, "ratio": None} == rows["q_beam", 4]
  # Shared seed responses count once; the exact values are nobody's labels.
  wanted = {"majority": 0, "orm_best_of_n": 100, "q_best_of_n": 120, "q_beam": 120, "pav_beam@strong": 130, "pav_beam": 120,
            "prover_q_beam@strong": 10, "prover_q_beam@exact": 0, "pav_beam@weak": None, "q_beam_pass": 120, "no_arm": None}
  assert {method: search.label_tokens(method) for method in wanted} == wanted
  said = verdicts.sentences(search)["PAV beam against the other arms of search at equal compute"]
  assert len(said) == 3 and "Q beam of 4 (1.40 of the compute) .500 " in said[1] and "no Q beam that was run costs as much" in said[2]
  assert "exact" not in " ".join(said) and said[1].startswith("PAV beam (strong) of 2 1.000 [1.000, 1.000] at 100 FLOPs a problem: ")
