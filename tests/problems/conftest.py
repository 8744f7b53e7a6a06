"""Small sets in the publishers' layouts, with text of our own."""

import json
import pathlib

import pytest


def _write(path: pathlib.Path, *rows: dict) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def publisher_dir(tmp_path_factory) -> pathlib.Path:
  """GSM8K 30 / 4; MATH 7 (one with an empty box, as published) / 5; MATH's split by PRM800K 10 / 2."""
  root = tmp_path_factory.mktemp("publisher")
  for split, count in (("train", 30), ("test", 4)):
    _write(root / f"gsm8k/{split}.jsonl", *(
        {"question": f"Ann has {i} hats and buys {i}. How many ({split})?",
         "answer": f"{i}+{i} = <<{i}+{i}={2 * i}>>{2 * i} hats.\n#### {2 * i}"} for i in range(count)))
  for split, subject, number in [("train", "algebra", n) for n in (1, 2, 10)] + [
      ("train", "number_theory", n) for n in (3, 4, 5)] + [("test", "algebra", n) for n in (1, 2, 3, 4, 5)]:
    _write(root / f"MATH/{split}/{subject}/{number}.json",
           {"problem": f"What is ${number}^2$ ({split})?", "level": "Level 1", "type": subject,
            "solution": f"It is $\\boxed{{{number ** 2}}}$."})
  _write(root / "MATH/train/number_theory/7115.json",
         {"problem": "Nothing?", "level": "Level 1", "type": "Number Theory", "solution": r"$\boxed{}$"})
  _write(root / "prm800k/math_splits/test.jsonl", *(
      {"problem": f"What is ${n}^2$ (test)?", "solution": "", "answer": "", "subject": "", "level": 1,
       "unique_id": f"test/algebra/{n}.json"} for n in (4, 2)))
  return root
