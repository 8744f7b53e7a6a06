"""The command from files to table and JSON: planted verifiers, what is left out, going on, and one line for each mistake."""

import json
import types

import numpy as np
import pytest

from pav_jax import judge
from pav_jax.problems.given import Given
from pav_jax.training.preemption import Preempted

LABELS = {"gsm8k": (0, 1, 2, -1, -1), "math": (2, -1)}


def process_rows():
  return [{"id": f"{subset}-{n}", "problem": "Say a word.", "steps": ["One.", "Two.", "Three."], "label": label,
           "final_answer_correct": label in (-1, 2), "generator": "hand"}
          for subset, labels in LABELS.items() for n, label in enumerate(labels)]


def prm_rows():
  return [{"modified_question": "Say a word.", "modified_process": ["One.", "Two.", "Three."], "error_steps": wrong, "classification": kind,
           "idx": f"{kind}_1"} for kind, wrong in (("circular", [2]), ("multi_solutions", []))]


def mr_rows():
  return [{"question": "Say.", "model_output_step_format": [["One.", "More."], ["Two."]], "model_output_solution_correctness": said,
           "model_output_solution_first_error_step": step} for said, step in (("wrong", 2), ("correct", "N/A"))]


@pytest.fixture
def files(tmp_path, monkeypatch):
  """The three benchmarks' files in the current folder."""
  monkeypatch.chdir(tmp_path)
  for name, rows in (("pb.jsonl", process_rows()), ("prm.jsonl", prm_rows()), ("mr.json", mr_rows())):
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
  return ["pb.jsonl", "prm.jsonl", "mr.json"]


@pytest.fixture
def plant(monkeypatch):
  """Plants a verifier: a function of the case that gives its q_z; the number of values that were asked for is in `.asked`."""
  def planted(of, verdicts=False):
    told, asked = {}, []
    def rows(cases):
      pairs = []
      for case in cases:
        pairs.append((np.zeros(len(case.question), np.int32), Given(np.zeros(sum(map(len, case.steps)), np.int32), np.zeros(len(case.steps), np.int32))))
        told[id(pairs[-1][0])] = case
      return pairs
    def values(pairs, bar):
      asked.extend(told[id(prompt_t)] for prompt_t, _ in pairs)
      return [np.array(of(told[id(prompt_t)]), np.float32) for prompt_t, _ in pairs]
    monkeypatch.setattr(judge, "load", lambda flags: judge.Verifier(rows, values, 8192, verdicts))
    return types.SimpleNamespace(asked=asked)
  return planted


def oracle(case):
  return [0.9] + [0.9 if case.first_wrong == -1 or s < case.first_wrong else 0.1 for s in range(len(case.steps))]


def constant(case):
  return [0.7] * (len(case.steps) + 1)


def value(found, *path):
  for name in path:
    found = found[name]
  return found["value"]


def test_a_verdict_on_a_step_is_read_in_one_way(files, plant, capsys, tmp_path):
  """Its first number means nothing, there is no change of it; and its readings say that they are verdicts."""
  plant(lambda case: [0.0] + [0.1 if s == case.first_wrong or s in case.wrong else 0.9 for s in range(len(case.steps))], verdicts=True)
  assert judge.main(["--verifier=v", *files, "--output=out.json"]) == 0
  found = json.loads((tmp_path / "out.json").read_text())
  assert list(found["tau"]) == list(found["benchmarks"]["ProcessBench"]["subsets"]["gsm8k"])[2:] == ["verdict"]
  assert value(found, "benchmarks", "ProcessBench", "subsets", "gsm8k", "verdict", "f1") == 1
  assert value(found, "benchmarks", "PRMBench", "all", "verdict", "prm_score") == 1
  said = capsys.readouterr().out
  assert "verdict < .5" in said and "Q <" not in said and "A <" not in said
  assert judge.main(["--readings=out.readings.jsonl", *files, "--output=again.json", "--tau_q=.95"]) == 0
  again = json.loads((tmp_path / "again.json").read_text())
  assert again["tau"] == {"verdict": {"tau": 0.95, "from": "given"}}
  assert value(again, "benchmarks", "ProcessBench", "subsets", "gsm8k", "verdict", "correct") == 0


def test_a_planted_oracle_is_perfect_on_all_three(files, plant, capsys):
  plant(oracle)
  assert judge.main(["--verifier=v", *files, "--output=o/out.json"]) == 0
  found = json.loads(open("o/out.json").read())
  for name in ("q", "advantage", "progress"):
    process = found["benchmarks"]["ProcessBench"]
    for subset in LABELS:
      assert [value(process["subsets"], subset, name, m) for m in ("erroneous", "correct", "f1")] == [1, 1, 1]
    assert value(process["mean"], name, "f1") == value(found["benchmarks"]["MR"]["subsets"]["mr"], name, "f1") == 1
    assert process["right answer, wrong step"]["cases"] == 2
  # Q stays low behind a wrong step, and PRMBench's wrong step is one: 1 of 3 right ones of the item is called wrong.
  prm = found["benchmarks"]["PRMBench"]
  assert value(prm["classes"]["circular"], "q", "prm_score") == pytest.approx((2 * 1 / (2 + 1) + 2 * 1 / (2 + 1)) / 2)
  assert value(prm["all"], "q", "prm_score") == pytest.approx((2 * 4 / (8 + 1) + 2 * 1 / (2 + 1)) / 2)
  assert value(prm["all"], "progress", "prm_score") == value(prm["classes"]["multi_solutions"], "q", "prm_score") == 1
  out = capsys.readouterr().out
  assert "Q < .500 (gsm8k)" in out and "plain mean of 2" in out and "multi_solutions" in out and "o/out.readings.jsonl" in out
  lines = [json.loads(line) for line in open("o/out.readings.jsonl")]
  assert len(lines) == 7 + 2 + 2 and lines[1] == {
      "file": "pb.jsonl", "row": 2, "text": lines[1]["text"], "benchmark": "ProcessBench", "subset": "gsm8k", "id": "gsm8k-1", "first_wrong": 1, "wrong": [],
      "found": {"q": 1, "advantage": 1, "progress": 1}, "q": pytest.approx([0.9, 0.9, 0.1, 0.1])}


def test_a_planted_constant_comes_to_the_numbers_by_hand(files, plant):
  plant(constant)
  assert judge.main(["--verifier=v", *files, "--output=out.json", "--tau_q=.8"]) == 0
  found = json.loads(open("out.json").read())
  process, mr, prm = (found["benchmarks"][name] for name in ("ProcessBench", "MR", "PRMBench"))
  # Below tau: the first step of everything is called wrong, right for one of gsm8k's three, of math's one never.
  for x, want in ((process["subsets"]["gsm8k"], 1 / 3), (process["subsets"]["math"], 0), (process["mean"], 1 / 6), (mr["subsets"]["mr"], 0)):
    assert [value(x, "q", m) for m in ("erroneous", "correct", "f1")] == [pytest.approx(want), 0, 0]
    for name in ("advantage", "progress"):
      assert [value(x, name, m) for m in ("erroneous", "correct", "f1")] == [0, 1, 0]
  # Every step called wrong: F1 of wrong steps 2 * 1 / (2 * 1 + 5); none: F1 of correct ones 2 * 5 / (2 * 5 + 1).
  assert [value(prm["all"], "q", m) for m in ("prm_score", "f1_correct", "f1_wrong")] == [pytest.approx(1 / 7), 0, pytest.approx(2 / 7)]
  assert [value(prm["all"], "progress", m) for m in ("prm_score", "f1_correct", "f1_wrong")] == [pytest.approx(5 / 11), pytest.approx(10 / 11), 0]


def test_readings_of_anyone_are_judged_alike_without_a_verifier(files, plant):
  plant(oracle)
  judge.main(["--verifier=v", *files, "--output=out.json"])
  assert judge.main(["--readings=out.readings.jsonl", *files, "--output=again.json"]) == 0
  first, again = (json.loads(open(name).read()) for name in ("out.json", "again.json"))
  assert first["benchmarks"] == again["benchmarks"] and first["tau"] == again["tau"]
  assert open("out.readings.jsonl").read() == open("again.readings.jsonl").read()


def test_what_a_file_says_does_not_reach_the_terminal_raw(files, plant, capsys):
  plant(oracle)
  with open("hostile.jsonl", "w") as file:
    file.write(json.dumps(process_rows()[0] | {"id": "\x1b[2Jgone-3"}) + "\n")
    file.write(json.dumps(process_rows()[0] | {"label": "\x1b[2J"}) + "\n")
  assert judge.main(["--verifier=v", "hostile.jsonl"]) == 1
  said = capsys.readouterr()
  assert "?[2Jgone" in said.out and "\x1b" not in said.out + said.err


def test_what_is_too_long_or_malformed_is_counted_and_left_out_aloud(files, plant, capsys):
  plant(oracle)
  with open("pb.jsonl", "a") as file:
    for change in ({"steps": ["x" * 90], "label": 0}, {"label": 5}, {"label": "2"}):
      file.write(json.dumps(process_rows()[0] | change) + "\n")
  assert judge.main(["--verifier=v", "pb.jsonl", "--output=out.json", "--max_tokens=100"]) == 1
  said = capsys.readouterr().err
  assert "pb.jsonl row 9, field label: 5 is no step of 3" in said
  assert "pb.jsonl: 1 of 10 rows are malformed and left out" in said
  assert "pb.jsonl: 1 of 10 rows are longer than 100 tokens and left out (--max_tokens)" in said
  left = json.loads(open("out.json").read())["files"]["pb.jsonl"]
  assert (left["too long"], [x["row"] for x in left["malformed"]], left["cases"]) == (1, [9], 9)
  assert len(open("out.readings.jsonl").readlines()) == 8


@pytest.mark.parametrize("cases, tokens, kept", [(4, 2**17, 4), (256, 1, 6)])
def test_a_stopped_run_goes_on_and_another_verifiers_values_are_refused(files, plant, monkeypatch, capsys, cases, tokens, kept):
  monkeypatch.setattr(judge, "_BLOCK", cases)
  monkeypatch.setattr(judge, "_BLOCK_TOKENS", tokens)
  seen = []
  def stops(case):
    if len(seen) == 6:
      raise Preempted("")
    seen.append(case)
    return oracle(case)
  plant(stops)
  assert judge.main(["--verifier=v", *files, "--output=out.json"]) == 143
  assert "the same command goes on" in capsys.readouterr().err
  with open("out.readings.jsonl", "a") as file:
    file.write('{"file": "pb.jsonl", "row": 1, "q": [0.')  # torn by a kill
  asked = plant(oracle).asked
  assert judge.main(["--verifier=v", *files, "--output=out.json"]) == 0
  # Those of finished blocks are not read again, but one that tells whether it is the same verifier.
  assert len(asked) == 1 + 11 - kept
  whole = open("out.json").read()
  assert judge.main(["--verifier=v", *files, "--output=out.json"]) == 0 and open("out.json").read() == whole
  plant(constant)
  assert judge.main(["--verifier=v", *files, "--output=out.json"]) == 2
  assert "another verifier's values" in capsys.readouterr().err


def test_a_case_that_has_changed_is_read_anew(files, plant):
  """Same file, same row, as many steps: what was kept was of the earlier text."""
  plant(oracle)
  assert judge.main(["--verifier=v", *files, "--output=out.json"]) == 0
  rows = process_rows()
  rows[1]["steps"][0] += " Or not."
  with open("pb.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
  asked = plant(oracle).asked
  assert judge.main(["--verifier=v", *files, "--output=out.json"]) == 0
  assert [(case.file, case.row) for case in asked[1:]] == [("pb.jsonl", 2)]  # the first tells whether it is the same verifier


def test_given_readings_are_found_by_the_files_name_and_may_end_anyhow(files, plant, tmp_path, capsys):
  plant(oracle)
  assert judge.main(["--verifier=v", "pb.jsonl", "--output=out.json"]) == 0
  rows = [json.loads(line) for line in open("out.readings.jsonl")]
  plain = [{"file": "elsewhere/pb.jsonl", "row": row["row"], "q": row["q"]} for row in rows]
  (tmp_path / "theirs.jsonl").write_text("\n".join(map(json.dumps, plain)))
  assert judge.main(["--readings=theirs.jsonl", "./pb.jsonl", "--output=again.json"]) == 0
  assert json.load(open("again.json"))["benchmarks"] == json.load(open("out.json"))["benchmarks"]
  (tmp_path / "theirs.jsonl").write_text("".join(json.dumps(row | {"file": "math.jsonl"}) + "\n" for row in plain))
  assert judge.main(["--readings=theirs.jsonl", "pb.jsonl"]) == 2
  assert "its rows name the files 'math.jsonl'" in capsys.readouterr().err
  (tmp_path / "theirs.jsonl").write_text(json.dumps(rows[0] | {"text": "0"}) + "\n")
  assert judge.main(["--readings=theirs.jsonl", "pb.jsonl"]) == 2
  assert "another text" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, said", [
    (["--verifier=v", "absent.jsonl"], "there is no file absent.jsonl"),
    (["--verifier=v", "pb.jsonl", "./pb.jsonl"], "is given twice"),
    (["--verifier=v", "pb.jsonl", "--max_tokens=9000"], "--max_tokens 9000 is more than 8192"),
    (["--verifier=v", "pb.jsonl", "--max_tokens=3"], "none of 7 cases fits into --max_tokens 3"),
    (["--verifier=v", "pb.jsonl", "--rows=0"], "--rows 0 is less than 1"),
    (["--verifier=v", "pb.jsonl", "--tau_q=nan"], "--tau_q nan is no threshold"),
    (["--verifier=v", "pb.jsonl", "--output=pb.jsonl"], "would overwrite an input"),
    (["--readings=r.jsonl", "pb.jsonl"], "r.jsonl: 6 of 7 cases have no row there, the first pb.jsonl row 2"),
    (["--readings=short.jsonl", "pb.jsonl"], "2 values in q; one of the question and one of each of 3 steps"),
    (["--readings=text.jsonl", "pb.jsonl"], "q is no list of numbers"),
    (["--readings=endless.jsonl", "pb.jsonl"], "q is no list of numbers"),
    (["--readings=absent.jsonl", "pb.jsonl"], "absent.jsonl is not there"),
    (["--readings=pb.jsonl", "pb.jsonl"], "is no row with 'q'"),
])
def test_a_mistake_is_one_line_and_status_2(files, plant, capsys, arguments, said):
  plant(oracle)
  for name, q in (("r", [0.5] * 4), ("short", [0.5] * 2), ("text", ["a"] * 4), ("endless", [10**400] * 4)):
    with open(f"{name}.jsonl", "w") as file:
      file.write(json.dumps({"file": "pb.jsonl", "row": 1, "q": q}) + "\n")
  assert judge.main(arguments) == 2
  err = capsys.readouterr().err
  assert err.startswith("error: ") and said in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_trained_verifier_is_judged(done, tmp_path, monkeypatch):
  """The whole way, from a run's checkpoint; a value of the question and of each step."""
  monkeypatch.chdir(tmp_path)
  with open("pb.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in process_rows())
  assert judge.main([f"--verifier={done}/verifier/q/best", "pb.jsonl", "--output=out.json"]) == 0
  rows = [json.loads(line) for line in open("out.readings.jsonl")]
  assert len(rows) == 7 and all(len(row["q"]) == 4 and all(0 < x < 1 for x in row["q"]) for row in rows)
