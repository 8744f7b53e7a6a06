r"""Verdicts: is the answer of a response equal to the reference?

`Grader` takes one road for all data sets:

1. Extract the answer; a response without one is ungradable, 'no answer'.
2. Where spelling decides, it does: the same normalised text is correct, and
   two different plain numbers are not. Most grading ends here, in this process.
3. Else math-verify compares, in processes with limits on time and memory:
   ungradable are 'unparsable', 'timeout', 'out of memory' and 'worker died'.
4. Every distinct triple (data set, reference, answer) is judged once per `Grader`.

An answer equal in value is correct in whatever form: `2^{10}` for `1024`, a
list in any order. Some published graders of MATH want the form too.

`Grader.classes` groups the answers of a problem by the same equality, for
votes. That equality is no equivalence: it may hold in one direction only, and
a = b and b = c need not give a = c. So the classes are greedy, and hang on the
order of the answers:

1. Answers of one spelling are one; spellings stand in order of appearance.
2. The first without a class opens one. Of the others without a class those
   join that it equals, as reference or as answer.
3. Again, until every spelling has a class: it is in that of the earliest
   opener it equals.

What was ungradable against the reference is compared with nothing: it is equal
to its own spelling alone, and an answer that runs for ever costs no more time.
"""

import collections
from collections.abc import Hashable, Iterable, Sequence
import enum
import functools
import itertools
from typing import NamedTuple

from pav_jax import errors
from pav_jax.grading import answers
from pav_jax.grading import spelling
from pav_jax.grading import workers

# The longest answer of MATH has 159 characters; a parser's time grows faster than the text.
_MAX_CHARACTERS = 1000
REASONS = ("no answer", "unparsable", "timeout", "out of memory", "worker died")


class Verdict(enum.IntEnum):
  CORRECT = 1
  INCORRECT = 0
  UNGRADABLE = -1


class Grade(NamedTuple):
  verdict: Verdict
  answer: str | None  # as extracted from the response
  reason: str  # '', or why ungradable: one of REASONS


def check(section):
  """UserError for what means nothing in a grading section."""
  _check(section.workers, section.timeout_s)


def _check(num_workers: int, timeout_s: float):
  if num_workers < 1 or not 0 < timeout_s < float("inf"):
    raise errors.UserError(f"grading needs workers >= 1 and timeout_s > 0, not {num_workers} and {timeout_s}")


class Grader:
  """Grades responses; a context manager, whose processes start at the first answer that needs one.

  Args:
    num_workers: processes that compare answers.
    timeout_s: limit per answer, from when a process takes it up.
    memory_bytes: limit on the address space of each process.
  """

  def __init__(self, num_workers: int = 2, timeout_s: float = 5.0, memory_bytes: int = 4 << 30):
    _check(num_workers, timeout_s)
    self._workers = workers.Workers(num_workers, timeout_s, memory_bytes)
    self._verdicts: dict[tuple[str, workers.Task], tuple[Verdict, str]] = {}  # by data set; both sides cleaned
    self._faults: dict[tuple[str, str], str] = {}  # by data set and reference
    self._cleaned_references: dict[tuple[str, str], str] = {}

  def __enter__(self) -> "Grader":
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def close(self) -> None:
    self._workers.close()

  def grade(self, references: Sequence[str], responses: Sequence[str], datasets: str | Sequence[str],
            ended: bool | Sequence[bool] = True) -> list[Grade]:
    """One grade per response; raises UserError where a reference has no answer to compare with.

    ended: whether the response came to its end or was cut off (`answers`); one for all, or one each.
    """
    datasets, ended = _per_row(datasets, references), [ended] * len(responses) if isinstance(ended, bool) else ended
    self.require_sound(references, datasets)
    stated = [answers.extract_answer(*row) for row in zip(responses, datasets, map(bool, ended), strict=True)]
    keys = [(dataset, workers.Task(self._cleaned_references[dataset, reference], answer and _clean(answer, dataset)))
            for dataset, reference, answer in zip(datasets, references, stated, strict=True)]
    self._judge(key for key, answer in zip(keys, stated) if answer is not None)
    grades = []
    for key, answer in zip(keys, stated):
      verdict, reason = (Verdict.UNGRADABLE, "no answer") if answer is None else self._verdicts[key]
      grades.append(Grade(verdict, answer, reason))
    return grades

  def classes(self, grades: Sequence[Grade], datasets: str | Sequence[str],
              problems: Sequence[Hashable]) -> tuple[list[int], collections.Counter]:
    """(the class of each answer among those of its problem, -1 for none; counts of comparisons): see the top of the file.

    problems: which one each grade is of. A pair is two comparisons; those that failed are counted by reason, too.
    """
    names, cleaned, alone = [], {}, set()
    for grade, dataset, problem in zip(grades, _per_row(datasets, grades), problems, strict=True):
      text = "" if grade.answer is None else _clean(grade.answer, dataset)
      name = None if grade.answer is None else (problem, dataset, spelling.canonical(text) or grade.answer)
      names.append(name)
      if name is not None:
        cleaned.setdefault(name, text)
        if grade.reason or not text:
          alone.add(name)
    waiting, class_of, counts = collections.defaultdict(list), {None: -1}, collections.Counter()
    for name in cleaned:
      waiting[name[:2]].append(name)
    while waiting:
      asked = {}  # pair -> its two comparisons
      for opener, *others in waiting.values():
        for other in others:
          if not {opener, other} & alone:
            both = (cleaned[opener], cleaned[other]), (cleaned[other], cleaned[opener])
            asked[opener, other] = [(opener[1], workers.Task(*texts)) for texts in both]
      keys = list(itertools.chain(*asked.values()))
      self._judge(keys)
      counts["comparisons of answers"] += len(keys)
      counts.update(f"comparisons: {self._verdicts[key][1]}" for key in keys if self._verdicts[key][1])
      number = max(class_of.values()) + 1
      class_of |= dict.fromkeys((opener for opener, *_ in waiting.values()), number)
      class_of |= {pair[1]: number for pair, two in asked.items() if any(self._verdicts[key][0] == Verdict.CORRECT for key in two)}
      left = {group: [name for name in spelt if name not in class_of] for group, spelt in waiting.items()}
      waiting = {group: spelt for group, spelt in left.items() if spelt}
    return [class_of[name] for name in names], counts

  def _judge(self, keys: Iterable[tuple[str, workers.Task]]) -> None:
    """Sees to it that `_verdicts` has all of these."""
    asked = []
    for dataset, task in set(keys) - self._verdicts.keys():
      verdict = _decide(task, dataset)
      if verdict is None:
        asked.append((dataset, task))
      else:
        self._verdicts[dataset, task] = verdict
    outcomes = self._workers.judge(task for _, task in asked)
    for dataset, task in asked:
      self._verdicts[dataset, task] = _verdict(outcomes[task])

  def reference_faults(self, references: Sequence[str], datasets: str | Sequence[str]) -> list[str]:
    """For each reference what keeps responses from being compared with it, '' for a sound one."""
    keys = list(zip(_per_row(datasets, references), references, strict=True))
    asked = {}
    for key in set(keys) - self._faults.keys():
      dataset, reference = key
      answer = _clean(answers.reference_answer(reference, dataset) or "", dataset)
      self._cleaned_references[key] = answer
      if not answer:
        self._faults[key] = "states no answer"
      elif spelling.numeral(answer) is not None or dataset == "math" and spelling.is_words(answer):
        self._faults[key] = ""
      elif dataset == "arithmetic":
        self._faults[key] = f"is no number: {answer!r}"
      else:
        asked[key] = workers.Task(answer, None)
    outcomes = self._workers.judge(asked.values())
    for key, task in asked.items():
      self._faults[key] = "" if outcomes[task] == "correct" else f"is {outcomes[task]}: {task.reference!r}"
    return [self._faults[key] for key in keys]

  def require_sound(
      self, references: Sequence[str], datasets: str | Sequence[str], names: Sequence[str] | None = None
  ) -> None:
    """Raises UserError for the first reference with a fault, named by `names` or its row."""
    for row, fault in enumerate(self.reference_faults(references, datasets)):
      if fault:
        raise errors.UserError(f"{names[row] if names else f'row {row}'}: the reference {fault}")


def check_references(
    references: Sequence[str], datasets: str | Sequence[str], names: Sequence[str] | None = None
) -> None:
  """For loading data: raises UserError naming the first row whose reference cannot be compared with."""
  with Grader() as grader:
    grader.require_sound(references, datasets, names)


def _per_row(datasets: str | Sequence[str], rows: Sequence) -> Sequence[str]:
  datasets = [datasets] * len(rows) if isinstance(datasets, str) else datasets
  for unknown in set(datasets).difference(answers.DATASETS):
    raise ValueError(f"unknown dataset {unknown!r}, not one of {answers.DATASETS}")
  return datasets


@functools.lru_cache(maxsize=1 << 16)
def _clean(answer: str, dataset: str) -> str:
  """'' for what cannot be an answer."""
  if dataset == "arithmetic":
    return answer.strip()  # written by our own generator: no units, no LaTeX
  if len(answer) > _MAX_CHARACTERS:
    return answer if spelling.numeral(answer) is not None else ""
  return spelling.clean(answer)


def _decide(task: workers.Task, dataset: str) -> tuple[Verdict, str] | None:
  """The verdict where no worker is needed."""
  equal = spelling.equal_as_text(*task)
  if equal is not None:
    return Verdict(equal), ""
  if not task.answer or dataset == "arithmetic" or spelling.is_ambiguous(task.answer):
    return Verdict.UNGRADABLE, "unparsable"
  return None


def _verdict(outcome: str) -> tuple[Verdict, str]:
  if outcome in ("correct", "incorrect"):
    return Verdict(outcome == "correct"), ""
  return Verdict.UNGRADABLE, outcome
