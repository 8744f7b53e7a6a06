"""What would poison a run is found, counted and left out as asked: one by one, and by the stage."""

import json
import re

import pytest

from configs import default
from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.grading.grading import Grader
from pav_jax.problems import audit
from pav_jax.problems import prepare
from pav_jax.problems import vocabulary
from pav_jax.problems.problem import Problem
from pav_jax.training import records


def _problem(number, question="What is it?", answer="4", solution="", dataset="math"):
  return Problem(f"own/{number}", dataset, question, solution, answer)


@pytest.fixture(scope="module")
def grader():
  with Grader(num_workers=1) as found:
    yield found


@pytest.mark.parametrize("text, kinds", [
    (r"$\nu \neq \nabla$ and $\nRightarrow$", []), (r"First line.\nSecond line.", ["escapes"]), ("First line.\\n\\n", ["escapes"]),
    (r"\begin{matrix} a \\n \end{matrix}", []), ("$\x0crac{1}{2}$", ["escapes"]), ("two\nlines\tand a tab", []),
    ("<unused0>", ["special"]), ("a <eos> b", ["special"]), ("<unused99> \\n ", ["escapes", "special"]), ("a < b > <end>", [])])
def test_texts(grader, text, kinds):
  for problem in (_problem(1, question=text), _problem(1, solution=text)):
    assert [finding.kind for finding in audit.look([problem], {}, grader)] == kinds


def test_questions_that_come_again(grader):
  problems = [_problem(1, "1 + 1?"), _problem(2, "1  +\n1? "), _problem(3, "2 + 2?"), _problem(4, "1 + 1?")]
  found = audit.look(problems, {audit.key(" 2 +  2?"): "test"}, grader)
  assert [(f.kind, f.problem.id, f.said) for f in found] == [
      ("duplicate", "own/2", "own/1 asks the same"), ("leak", "own/3", "it is in test"), ("duplicate", "own/4", "own/1 asks the same")]


@pytest.mark.parametrize("answer, solution, dataset, wrong", [
    ("4", r"So $\boxed{5}$.", "math", True), (r"\frac12", r"So $\boxed{0.5}$.", "math", False), ("4", "Then 5 follows.", "math", False),
    ("5", "#### 5", "gsm8k", False), ("5", "#### 6", "gsm8k", True), ("5", "", "math", False), ("x", "The answer is $y$.", "math", True)])
def test_answers_against_their_solutions(grader, answer, solution, dataset, wrong):
  found = audit.look([_problem(1, answer=answer, solution=solution, dataset=dataset)], {}, grader)
  assert [f.kind for f in found] == ["contradiction"] * wrong


def test_references_that_nothing_can_be_compared_with(grader):
  problems = [_problem(1), _problem(2, answer="x = = +"), _problem(3, answer="12 of them, 7 more", dataset="gsm8k"), _problem(4, answer="1/2")]
  found = audit.unsound(problems, [("own.jsonl", str(n)) for n in range(4, 8)], grader)
  assert [problem.id for problem, _ in found] == ["own/2", "own/3"]
  assert [str(bad).partition(": the reference ")[0] for _, bad in found] == [f"own.jsonl row {n}, field answer" for n in (5, 6)]


def test_problems_without_a_solution(grader):
  problems = [_problem(1, solution="It is 4."), _problem(2, "And now?"), _problem(3, "And then?", solution=" \n")]
  found = audit.look(problems, {}, grader, imitated=True)
  assert [(f.kind, f.problem.id, f.said) for f in found] == [("unsolved", "own/2", "'And now?'"), ("unsolved", "own/3", "'And then?'")]
  assert not audit.look(problems, {}, grader)
  said = "of 3 have no solution, and stage sft needs one (kept"
  assert audit.lines(found, "problems train", 3, ()) == [
      f"problems train: 2 {said}; problems.leave_out=unsolved leaves them out); first own/2: 'And now?'"]
  # Questions and answers alone are enough for RL.
  assert audit.lines([*found, found[0]], "problems train", 3, ()) == [f"problems train: 3 {said}); first own/2: 'And now?'"]


def test_a_line_a_kind():
  found = [audit.Finding("leak", _problem(n), "it is in test") for n in (3, 5)] + [audit.Finding("duplicate", _problem(4), "own/1 asks the same")]
  assert audit.lines(found, "problems train", 9, ("leak",)) == [
      "problems train: 1 of 9 questions occur before (kept; problems.leave_out=duplicate leaves them out); first own/4: own/1 asks the same",
      "problems train: 2 of 9 questions are held out, too (left out); first own/3: it is in test"]


def test_the_longest_is_told():
  """148 of 150 are not 99 %, and 149 are; each length by itself."""
  lengths = [(5, 150 - n) for n in range(149)] + [(61, 1)]
  assert prepare._longest(lengths) == "longest prompt 61, solution 150; 99 % are up to 5 and 149"


def _row(number, **changes):
  return {"question": f"What is {number} + {number}?", "solution": f"It is \\boxed{{{2 * number}}}.", "answer": str(2 * number)} | changes


def _config(tmp_path, **changes):
  config = default.get_config()
  config.update_from_flattened_dict({"stage": "problems", "vocabulary.size": 300, "problems.max_prompt": 64, "problems.max_solution": 64,
                                     "problems.problems_per_shard": 4, **changes})
  for split in ("train", "validation", "test"):
    config.problems[split] = str(tmp_path / "{split}.jsonl") if f"problems.{split}" not in changes else changes[f"problems.{split}"]
  config.lock()
  return config


def _write(tmp_path, name, rows):
  (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def poisoned(tmp_path):
  pytest.importorskip("seqio")
  _write(tmp_path, "train", [*map(_row, range(1, 8)), _row(11), _row(8, answer="proof"), _row(9, answer="x = = +"), _row(10, answer="7"),
                             _row(1), _row(20), _row(12, solution=r"Add.\nGet \boxed{24} <unused0>")])
  _write(tmp_path, "validation", map(_row, range(11, 12)))
  _write(tmp_path, "test", map(_row, range(20, 23)))
  return tmp_path


def test_all_splits_are_told_at_once(poisoned):
  _write(poisoned, "test", [_row(20), _row(21, answer="N/A")])
  with pytest.raises(UserError, match=r"^test: 1 of 2 rows .*; train: 2 of 14 rows ") as caught:
    main.run(_config(poisoned), poisoned / "run")
  assert "\n" not in str(caught.value)


def test_the_stage_tells_before_it_makes_anything(poisoned, capsys):
  """All malformed rows at once, whatever makes them so; what was made may be made otherwise then."""
  with pytest.raises(UserError) as caught:
    main.run(_config(poisoned, **{"problems.max_malformed": 1}), poisoned / "run")
  said = str(caught.value)
  assert "train: 2 of 14 rows are malformed, more than max_malformed = 1: " in said and "\n" not in said
  assert "train.jsonl row 9, field answer: 'proof' is no answer; " in said and "train.jsonl row 10, field answer: the reference " in said
  listed = (poisoned / "run/problems/train/left_out.txt").read_text().splitlines()
  assert len(listed) == 2 and said.endswith(f"all of them: {poisoned}/run/problems/train/left_out.txt")
  assert not list((poisoned / "run/problems").glob("**/*.npz"))
  capsys.readouterr()
  main.run(_config(poisoned, **{"problems.max_malformed": 2}), poisoned / "run")
  said = capsys.readouterr()
  lines = [line for line in said.err.replace("\r", "\n").splitlines() if "problems train: " in line or "left out: " in line]
  kept = lambda kind: f"(kept; problems.leave_out={kind} leaves them out)"
  *lines, malformed, done = lines
  assert malformed.startswith(f"{poisoned}/{{split}}.jsonl train: 2 rows left out: ") and not said.out
  for line, said in zip(lines, (
      f"1 of 12 answers contradict their own solution {kept('contradiction')}; first train/11: the answer is '7', the solution marks '20'",
      f"1 of 12 questions occur before {kept('duplicate')}; first train/12: train/1 asks the same",
      f"2 of 12 questions are held out, too {kept('leak')}; first train/8: it is in validation",
      f"1 of 12 texts hold a \\n spelt out or a backslash that JSON has eaten {kept('escapes')}; first train/14: ",
      f"1 of 12 texts spell a special token {kept('special')}; first train/14: "), strict=True):
    assert line.startswith(f"problems train: {said}")
  folder = records.Folder(poisoned / "run/problems/train")
  assert (folder.manifest()["counts"]["malformed"], folder.manifest()["counts"]["problems"]) == (2, 12)
  longest = [folder.read()[f"{name}_length_p"].max() for name in ("prompt", "solution")]
  assert done == "problems train: 12 kept, 2 left out; longest prompt {}, solution {} tokens".format(*longest)
  assert not (folder.read()["solution_pt"] == vocabulary.load(folder.path / "vocabulary.model").scoring_id).any()


def test_kinds_are_left_out(poisoned):
  config = _config(poisoned, **{"problems.max_malformed": 2, "problems.leave_out": ("leak", "duplicate", "contradiction")})
  main.run(config, poisoned / "run")
  folder = records.Folder(poisoned / "run/problems/train")
  assert folder.manifest()["counts"] | {"tokens": 0} == {
      "malformed": 2, "problems": 8, "too long": 0, "tokens": 0, "left out: leak": 2, "left out: duplicate": 1, "left out: contradiction": 1}
  before = folder.read()
  assert before["id_p"].tolist() == [f"train/{n}" for n in (*range(1, 8), 14)]
  # Every row by its file and its number there.
  listed = [line.split(": ")[0].split(", ")[0] for line in (folder.path / "left_out.txt").read_text().splitlines()]
  assert listed == [f"{poisoned}/train.jsonl row {n}" for n in (9, 10, 8, 12, 13, 11)]
  # A shard that is lost is made again alike: what is left out shifts nothing.
  for name in ("manifest.json", "00001.json", "00001.npz"):
    (folder.path / name).unlink()
  main.run(config, poisoned / "run")
  assert all((before[name] == x).all() for name, x in folder.read().items())


def test_what_has_no_room_or_no_solution(poisoned, capsys):
  """The longest of all shards is told; the test split needs no solutions."""
  _write(poisoned, "train", [*map(_row, range(1, 7)), _row(7, solution="", question="What is seven and seven, and seven?")])
  _write(poisoned, "test", [_row(20, solution="")])
  with pytest.raises(UserError) as caught:
    main.run(_config(poisoned, **{"problems.max_solution": 2}), poisoned / "run")
  longest = re.fullmatch(r"train: 4 of 4 problems are longer than problems.max_prompt = 64 or problems.max_solution = 2 tokens "
                         r"\(longest prompt (\d+), solution (\d+); 99 % are up to \1 and \2\); a share of .*", str(caught.value))
  capsys.readouterr()
  room = {"problems.max_prompt": int(longest[1]), "problems.max_solution": int(longest[2])}
  main.run(_config(poisoned, **room), poisoned / "run")
  said = capsys.readouterr().err
  assert f"problems train: 7 kept, 0 left out; longest prompt {longest[1]}, solution {longest[2]} tokens\n" in said
  assert "problems train: 1 of 7 have no solution, and stage sft needs one (kept; problems.leave_out=unsolved leaves them out); first train/7: " in said
  assert "problems test: 1 kept, 0 left out; " in said and said.count("have no solution") == 1


def test_one_file_is_parted_and_two_are_not(poisoned, tmp_path):
  """Train and validation of one file share nothing; each of two files comes whole; the test set's own file trains nobody."""
  _write(tmp_path, "one", map(_row, range(30, 40)))
  ids = lambda run, split: records.Folder(tmp_path / run / "problems" / split).read()["id_p"].tolist()
  same = {"problems.train": f"{tmp_path}/one.jsonl", "problems.validation": f"{tmp_path}/one.jsonl", "problems.validation_size": 3}
  main.run(_config(tmp_path, **same), tmp_path / "a")
  assert len(ids("a", "train")) == 7 and len(ids("a", "validation")) == 3
  assert sorted(ids("a", "train") + ids("a", "validation")) == sorted(f"one/{n}" for n in range(1, 11))
  main.run(_config(tmp_path, **{"problems.train": f"{tmp_path}/one.jsonl"}), tmp_path / "b")
  assert len(ids("b", "train")) == 10 and ids("b", "validation") == ["validation/1"]
  with pytest.raises(UserError, match="config.problems.train: .*/one.jsonl is problems.test, too: nothing would be held out"):
    main.run(_config(tmp_path, **same, **{"problems.test": f"{tmp_path}/one.jsonl"}), tmp_path / "c")


def test_the_same_row_of_two_files_is_not_lost_twice(poisoned, tmp_path):
  for folder in ("a", "b"):
    (tmp_path / folder).mkdir()
    _write(tmp_path / folder, "arithmetic", map(_row, range(30, 32)))  # a file's name, and no set's
  config = _config(tmp_path, **{"problems.train": f"{tmp_path}/a/arithmetic.jsonl,{tmp_path}/b/arithmetic.jsonl",
                                "problems.leave_out": ("duplicate",)})
  with pytest.raises(UserError, match="train: arithmetic/1 is in two files, all alike"):
    main.run(config, tmp_path / "run")


def test_keys_that_came_later_are_the_default_s():
  """A plan without them means these."""
  config = json.loads(json.dumps(default.get_config().to_dict()))
  for key, before in records.LATER.items():
    section, name = key.split(".")
    assert config[section][name] == before
