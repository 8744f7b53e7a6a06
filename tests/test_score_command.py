"""The command that scores a file: what it writes, what it refuses, where it goes on, and that it is what search says."""

import json
import os
import shutil

import numpy as np
import pytest

import fakes
from pav_jax import library
from pav_jax import score
from pav_jax.rollouts import jobs
from pav_jax.rollouts import sampling
from pav_jax.search import beam
from pav_jax.search import ranking
from pav_jax.values import equations
from pav_jax.verifiers import given as given_lib
from tests import made as made_lib

QUESTION = "Ann has 3 mod 40. 1: Ann +5 Bob *3"
STEPS = ["1: +5 = 8", "2: *3 = 24", "#### 24"]


@pytest.fixture
def call(made, tmp_path):
  """(exit status, rows written): the command on these rows; texts stand for themselves."""
  def run(rows, *flags, verifier="verifier/q/best"):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in rows) + b"\n")
    status = score.main([str(path), f"--verifier={made / verifier}", *flags])
    output = tmp_path / "rows.scored.jsonl"
    return status, [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else None
  return run


@pytest.mark.parametrize("end, seed", [("", 1), ("\n", 2)])
def test_scores_are_those_of_search(call, made, monkeypatch, end, seed):
  """The texts that a beam wrote, given as lists of steps: Q, A and the effective reward of each step as the beam had them."""
  q, other = (library.load(str(made / name)) for name in ("verifier/q/best", "other/best"))
  vocabulary, prompt_t, rounds, real = q.home.vocabulary, q.home.prompt_t(QUESTION), [], ranking.candidate_scores
  def spy(raw_rv, parent_rv, rank, rng):
    score_r = real(raw_rv, parent_rv, rank, rng)
    rounds.append((raw_rv[0], parent_rv[0], ranking.step_advantages(raw_rv, parent_rv, rank.prover)[0], score_r[0]))
    return score_r
  monkeypatch.setattr(ranking, "candidate_scores", spy)
  chances = np.full((800, 400), -60.0, np.float32)
  chances[400:] = 0
  for token in (*vocabulary.encode("Ann +5 8"), *vocabulary.encode("\n"), vocabulary.eos_id):
    chances[:400, token] = np.log(0.3 if token != vocabulary.eos_id else 0.05)
  newline, = vocabulary.encode("\n")
  if end:  # the text ends behind a line's end, and nowhere else
    chances[:400, vocabulary.eos_id] = -60
    chances[newline, vocabulary.eos_id] = np.log(0.3)  # the prompt ends in one, too: of this seed the answer begins with a word
  else:
    chances[newline, vocabulary.eos_id] = -60
  chances[newline, newline] = -60  # no line without a word
  policy = beam.Player(fakes.chain(400), {"logit_dv": chances, "score_d": np.zeros(800, np.float32)})
  found = beam.search(
      policy, beam.Judges(*(beam.Player(x.arch.network, x.params) for x in (q, other))), prompt_t[None], np.array([len(prompt_t)], np.int32),
      np.array([0], np.int32), jobs.token_tables(vocabulary, 400),
      way=beam.Way(ranking.Ranking("effective", ranking.Prover("q"), 0.7), width=1, candidates=1), max_rounds=60, max_new=60,
      max_step=60, sampling=sampling.Sampling(), seed=seed, rows=1)
  monkeypatch.undo()
  token_t = found.token_pt[0, :found.length_p[0]]
  steps = vocabulary.decode(token_t).split("\n")
  assert len(steps) > 2 and token_t[-1] == vocabulary.eos_id and (steps[-1] == "") == bool(end)
  for row in ({"steps": steps}, {"solution": "\n".join(steps)}):
    status, (scored,) = call([{"question": QUESTION, **row}], f"--prover={made / 'other/best'}", "--alpha=0.7")
    assert status == 0 and len(scored["steps"]) == len(steps)
    np.testing.assert_allclose(scored["q"], [rounds[0][1][0], *(raw_v[0] for raw_v, *_ in rounds)], atol=1e-5)
    np.testing.assert_allclose(scored["advantage"], [advantage for *_, advantage, _ in rounds], atol=1e-5)
    np.testing.assert_allclose(scored["effective_reward"], [effective for *_, effective in rounds], atol=1e-5)
  assert np.ptp(scored["q"]) > 1e-3 and scored["q"][-1] == pytest.approx(found.q_p[0], abs=1e-5)


def test_best_of_k_is_the_papers(call):
  status, (row,) = call([{"question": QUESTION, "steps": STEPS, "id": 7, "nested": {"a": [1, None]}}], "--prover_k=3", "--alpha=2")
  q_z = np.array(row["q"])
  assert status == 0 and len(q_z) == 4 and (row["id"], row["nested"], row["steps"]) == (7, {"a": [1, None]}, STEPS)
  np.testing.assert_allclose(row["advantage"], np.diff(1 - (1 - q_z) ** 3), atol=1e-5)
  np.testing.assert_allclose(row["effective_reward"], q_z[1:] + 2 * np.array(row["advantage"]), atol=1e-5)
  assert list(equations.advantages(q_z[None])[0]) != row["advantage"]


def test_a_verifier_of_the_advantage_itself(call, made):
  _, (row,) = call([{"question": QUESTION, "steps": STEPS}], f"--prover={made / 'other/best'}", "--prover_kind=advantage")
  _, (mu,) = call([{"question": QUESTION, "steps": STEPS}], verifier="other/best")
  np.testing.assert_allclose(row["advantage"], 2 * np.array(mu["q"][1:]) - 1, atol=1e-6)


def test_a_solution_is_cut_by_the_rule_and_its_steps_are_told(call):
  solution = "1: +5 = 8\n\n2: *3 = 24\nso it is\n\n#### 24"
  for rule, steps in (("newline", ["1: +5 = 8\n", "\n2: *3 = 24\n", "so it is\n", "\n#### 24"]),
                      ("blank", ["1: +5 = 8\n\n", "2: *3 = 24\nso it is\n\n", "#### 24"])):
    status, (row,) = call([{"question": QUESTION, "solution": solution}], f"--steps={rule}")
    assert (status, row["steps"], row["solution"], len(row["q"])) == (0, steps, solution, len(steps) + 1)


def test_what_cannot_be_scored_is_reported_and_the_rest_is_scored(call, capsys):
  good = {"question": QUESTION, "steps": STEPS}
  bad = [
      (b"{broken", "not JSON"), (b"\xff\xfe", "not UTF-8 at byte 0"), ([1], "not an object but list"), ({"steps": STEPS}, "'question': missing"),
      ({"question": 3, "steps": STEPS}, "'question': not a string but int"), ({"question": QUESTION}, "'steps' or 'solution': missing"),
      ({"question": QUESTION, "steps": "a\nb"}, "'steps': not a list but str"), ({"question": QUESTION, "steps": []}, "'steps': there is none"),
      ({"question": QUESTION, "steps": ["a", None]}, "'steps[1]': not a string but NoneType"),
      ({"question": QUESTION, "steps": ["a", " \n"]}, "'steps[1]': empty"), ({"question": QUESTION, "solution": ""}, "'solution': empty"),
      ({**good, "ended": "no"}, "'ended': not true or false but str"), ({**good, "steps": ["x" * 500]}, "'steps': "),
      ({"question": QUESTION, "steps": ["\ud800"]}, "'steps[0]': holds half a character"), ({**good, "q": 1}, "'q': is there already"),
      (b"[" * 100_000 + b"]" * 100_000, "not JSON")]
  status, rows = call([good, b"", *(row for row, _ in bad), b"  ", good], "--max_tokens=200")
  said = capsys.readouterr()
  assert status == 1 and len(rows) == len(bad) + 2 and "2 scored, 16 error" in said.out
  assert rows[0] == rows[-1] and "error" not in rows[0]
  for number, (row, (given, reason)) in enumerate(zip(rows[1:-1], bad), 3):
    assert reason in row["error"] and f"row {number}: {row['error']}" in said.err
    if isinstance(given, dict):
      assert given.items() <= row.items()  # what was there is kept
  assert "tokens with the question, more than --max_tokens=200" in rows[13]["error"]


def test_a_prefix_keeps_what_is_there(call):
  _, (row,) = call([{"question": QUESTION, "steps": STEPS, "q": 1, "error": "old"}], "--prefix=mu_")
  assert (row["q"], row["error"]) == (1, "old") and len(row["mu_q"]) == 4


def test_a_row_does_not_hang_on_its_neighbours(call):
  rows = [{"question": QUESTION, "steps": STEPS[:n] * m} for n in (1, 2, 3) for m in (1, 3, 9)]
  _, together = call(rows, "--rows=4")
  for row in together:
    _, (alone,) = call([{"question": QUESTION, "steps": row["steps"]}])
    np.testing.assert_allclose(row["q"], alone["q"], atol=1e-5)


def test_a_rerun_goes_on_where_it_was(call, tmp_path, monkeypatch):
  """Killed in the third of four blocks: two are kept, a torn line is not, errors are counted on, and the file comes to be the same."""
  monkeypatch.setattr(score, "_BLOCK_ROWS", 2)
  rows = [{"question": QUESTION, "steps": STEPS, "n": n} if n != 1 else {"n": n} for n in range(8)]
  _, whole = call(rows)
  (tmp_path / "rows.scored.jsonl").unlink()
  real, left = given_lib.values, [2]
  def dies(*args, **kwargs):
    left[0] -= 1
    if left[0] < 0:
      raise OSError("killed")
    return real(*args, **kwargs)
  monkeypatch.setattr(given_lib, "values", dies)
  assert call(rows) == (2, None)
  partial = tmp_path / "rows.scored.jsonl.partial"
  assert len(partial.read_text().splitlines()) == 4
  with partial.open("a") as file:
    file.write('{"n": 4, "q"')
  read = []
  monkeypatch.setattr(given_lib, "values", lambda *args, **kwargs: read.append(len(args[2])) or real(*args, **kwargs))
  status, found = call(rows)
  assert (status, found, sum(read)) == (1, whole, 4)
  assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "rows.scored.jsonl"}


def test_blocks_of_short_and_of_long_rows(monkeypatch):
  monkeypatch.setattr(score, "_BLOCK_ROWS", 3)
  monkeypatch.setattr(score, "_BLOCK_BYTES", 10)
  rows = [(number, b"x" * size) for number, size in enumerate((1, 1, 1, 1, 9, 30, 2))]
  assert [[number for number, _ in block] for block in score._blocks(iter(rows))] == [[0, 1, 2], [3, 4], [5], [6]]


def test_work_begun_otherwise_is_refused(call, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(score, "_BLOCK_ROWS", 1)
  rows, real = [{"question": QUESTION, "steps": STEPS}] * 2, given_lib.values
  calls = iter([1])
  monkeypatch.setattr(given_lib, "values", lambda *args, **kwargs: real(*args, **kwargs) if next(calls, 0) else 1 / 0)
  with pytest.raises(ZeroDivisionError):
    call(rows)
  monkeypatch.setattr(given_lib, "values", real)
  assert call(rows, "--alpha=0.7") == (2, None)
  assert "was begun otherwise: alpha was 0.5, now 0.7" in capsys.readouterr().err
  assert call(rows, verifier="other/best") == (2, None)
  assert "was begun otherwise: verifier was" in capsys.readouterr().err
  assert call(rows)[0] == 0


@pytest.mark.parametrize("flags, said", [
    (["--verifier=nosuch"], "no such folder"), (["--prover=nosuch"], "no such folder"), (["--alpha=-1"], "--alpha -1.0 is negative"),
    (["--prover_k=0"], "prover_k 0.0 is not above 0"), (["--max_tokens=0"], "must be at least 1"),
    (["--max_tokens=8193"], "--max_tokens 8193 is more than 8192"), (["--prompt=x"], "no {question}"),
    (["--vocabulary=nosuch.model"], "nosuch.model"), (["--output={file}"], "--output is the input")])
def test_a_mistake_is_one_line_before_anything_is_read(made, tmp_path, capsys, monkeypatch, flags, said):
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps({"question": QUESTION, "steps": STEPS}) + "\n")
  monkeypatch.setattr(library, "load", lambda *_, **__: 1 / 0)
  flags = [f"--verifier={made / 'verifier/q/best'}", *(flag.format(file=path) if "file" in flag else flag for flag in flags)]
  assert score.main([str(path), *flags]) == 2
  error = capsys.readouterr().err
  assert said in error and error.startswith("error: ") and error.count("\n") == 1
  assert {x.name for x in tmp_path.iterdir()} == {"rows.jsonl"}


def test_no_such_file(made, capsys):
  for path, said in (("nosuch.jsonl", "there is no file nosuch.jsonl"), (str(made), f"{made} is no file but a folder")):
    assert score.main([path, f"--verifier={made / 'verifier/q/best'}"]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_verifier_without_its_run(call, made, tmp_path, capsys):
  shutil.copytree(made / "verifier/q/best", tmp_path / "apart/best")
  rows = [{"question": QUESTION, "steps": STEPS}]
  assert call(rows, f"--verifier={tmp_path / 'apart/best'}")[0] == 2
  assert "give vocabulary=FILE.model and prompt=" in capsys.readouterr().err
  _, want = call(rows)
  status, found = call(rows, f"--verifier={tmp_path / 'apart/best'}", f"--vocabulary={made / 'problems/test/vocabulary.model'}",
                       f"--prompt={made_lib.PROMPT}", "--steps=newline")
  assert (status, found) == (0, want)


def test_a_second_command_on_one_output_is_refused(call, made, tmp_path, monkeypatch, capsys):
  """Started while the first one scores; what the first one writes is whole, and nothing else is left."""
  real, second = given_lib.values, []
  def values(*args, **kwargs):
    if not second:
      second.append(None)
      second[0] = score.main([str(tmp_path / "rows.jsonl"), f"--verifier={made / 'verifier/q/best'}"])
    return real(*args, **kwargs)
  monkeypatch.setattr(given_lib, "values", values)
  status, rows = call([{"question": QUESTION, "steps": STEPS, "n": n} for n in range(5)])
  assert second == [2] and f"another command is writing it (process {os.getpid()} on" in capsys.readouterr().err
  assert status == 0 and [row["n"] for row in rows] == [0, 1, 2, 3, 4]
  assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "rows.scored.jsonl"}


def test_a_table_s_null_counts_as_absent(call):
  solution = "\n".join(STEPS)
  status, rows = call([{"question": QUESTION, "solution": solution}, {"question": QUESTION, "solution": solution, "steps": None, "ended": None},
                       {"question": QUESTION, "solution": None, "steps": STEPS, "ended": None}, {"question": QUESTION, "steps": None},
                       {"question": QUESTION, "steps": None, "solution": None}])
  assert status == 1 and rows[0]["steps"] == rows[1]["steps"] and rows[0]["q"] == rows[1]["q"] == rows[2]["q"]
  assert [row["error"] for row in rows[3:]] == ["field 'steps': not a list but NoneType"] * 2


def test_what_is_too_long_is_named(call):
  _, rows = call([{"question": "x" * 500, "steps": STEPS}, {"question": QUESTION, "solution": "x" * 500}], "--max_tokens=200")
  assert rows[0]["error"].startswith("field 'question': ") and "tokens with the steps, more than" in rows[0]["error"]
  assert rows[1]["error"].startswith("field 'solution': ") and "tokens with the question, more than" in rows[1]["error"]


def test_a_final_newline_leaves_the_end_as_a_step_and_what_is_scored_can_be_scored_again(call):
  solution = "\n".join(STEPS)
  status, rows = call([{"question": QUESTION, "solution": solution + end} for end in ("", "\n", "\r\n")])
  assert status == 0 and [len(row["steps"]) for row in rows] == [len(STEPS), len(STEPS) + 1, len(STEPS) + 1]
  assert rows[1]["steps"][-1] == "" and rows[1]["q"] == rows[2]["q"] and rows[1]["q"][:-2] == pytest.approx(rows[0]["q"][:-1], abs=1e-6)
  status, again = call(rows, "--prefix=mu_")
  assert status == 0 and [row["mu_q"] for row in again] == [row["q"] for row in rows]


def test_help_says_the_defaults(capsys):
  with pytest.raises(SystemExit):
    score.main(["--help"])
  said = " ".join(capsys.readouterr().out.split())
  for default in ("effective reward; default: 0.5", "of the policy; default: 4", "reported; default, and most: 8192", "together; default: 64"):
    assert default in said
