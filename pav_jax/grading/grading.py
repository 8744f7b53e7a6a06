r"""Verdicts: is the answer of a response equal to the reference?

`Grader` takes one road for all data sets:

1. Extract the answer; a response without one is ungradable, 'no answer'.
2. Where spelling decides, it does: the same normalised text is correct, and
   two different plain numbers are not. Most grading ends here, in this process.
3. Else both are read (`reading`), in processes with limits on time and memory:
   ungradable are 'unparsable', 'timeout', 'out of memory' and 'worker died'.
4. The readings are compared (`equality`), in this process again. Every distinct
   answer is read once per `Grader`, however many it is compared with.

An answer equal in value is correct in whatever form: `2^{10}` for `1024`, a
list in any order. Some published graders of MATH want the form too.

`Grader.classes` groups the answers of a problem by the same equality, for
votes. That equality is symmetric and still no equivalence: where a part is
missing, 5 equals 5 cm and 5 m. So the classes are greedy, and hang on the order
of the answers:

1. Answers of one spelling are one, and so are those of one reading; they stand
   in order of appearance.
2. The first without a class opens one. Of the others without a class those
   join that it equals.
3. Again, until every answer has a class: it is in that of the earliest opener
   it equals.

So n answers are read n times, and compared at most n(n - 1)/2 times, in
microseconds each. What could not be read is equal to its own spelling alone,
and an answer that runs for ever costs no more time.
"""

import collections
from collections.abc import Hashable, Iterable, Sequence
import enum
import functools
from fractions import Fraction
import json
from typing import NamedTuple

from pav_jax import errors
from pav_jax.grading import answers
from pav_jax.grading import boxes
from pav_jax.grading import equality
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
    num_workers: processes that read answers.
    timeout_s: limit per answer, from when a process takes it up.
    memory_bytes: limit on the address space of each process.
  """

  def __init__(self, num_workers: int = 2, timeout_s: float = 5.0, memory_bytes: int = 4 << 30):
    _check(num_workers, timeout_s)
    self._workers = workers.Workers(num_workers, timeout_s, memory_bytes)
    self._read: dict[str, list | str] = {}  # by cleaned answer: its reading, or one of REASONS
    self._verdicts: dict[tuple[str, str, str], tuple[Verdict, str]] = {}  # by data set, reference and answer, both cleaned
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
    keys = [(dataset, self._cleaned_references[dataset, reference], _clean(answer or "", dataset))
            for dataset, reference, answer in zip(datasets, references, stated, strict=True)]
    self._judge({key for key, answer in zip(keys, stated) if answer is not None})
    grades = []
    for key, answer in zip(keys, stated):
      verdict, reason = (Verdict.UNGRADABLE, "no answer") if answer is None else self._verdicts[key]
      grades.append(Grade(verdict, answer, reason))
    return grades

  def classes(self, grades: Sequence[Grade], datasets: str | Sequence[str],
              problems: Sequence[Hashable]) -> tuple[list[int], collections.Counter]:
    """(the class of each answer among those of its problem, -1 for none; counts of comparisons): see the top of the file.

    problems: which one each grade is of. Answers that could not be read are counted, by reason.
    """
    datasets = _per_row(datasets, grades)
    cleaned = ["" if grade.answer is None else _clean(grade.answer, dataset) for grade, dataset in zip(grades, datasets)]
    self._ensure_read({text for text, grade, dataset in zip(cleaned, grades, datasets)
                       if text and not grade.reason and dataset != "arithmetic"})
    names, readings, counts = [], {}, collections.Counter()
    for grade, dataset, problem, text in zip(grades, datasets, problems, cleaned, strict=True):
      if grade.answer is None:
        names.append(None)
        continue
      found = self._reading(text, dataset) if text and not grade.reason else "ungradable"
      name = (problem, dataset, spelling.canonical(text) or grade.answer if isinstance(found, str) else json.dumps(found))
      names.append(name)
      if name not in readings and isinstance(found, str) and not grade.reason and text:
        counts[f"not compared: {found}"] += 1
      readings[name] = found
    waiting, class_of = collections.defaultdict(list), {None: -1}
    for name in readings:
      waiting[name[:2]].append(name)
    for group in waiting.values():
      number = 0
      while group:
        opener, *others = group
        comparable = [x for x in others if not isinstance(readings[x], str)] if not isinstance(readings[opener], str) else []
        counts["comparisons of answers"] += len(comparable)
        class_of |= {x: number for x in comparable if equality.equal(readings[opener], readings[x])} | {opener: number}
        group, number = [x for x in others if x not in class_of], number + 1
    return [class_of[name] for name in names], counts

  def _judge(self, keys: set[tuple[str, str, str]]) -> None:
    """Sees to it that `_verdicts` has all of these."""
    undecided = set()
    for key in keys - self._verdicts.keys():
      verdict = _decide(*key)
      if verdict is None:
        undecided.add(key)
      else:
        self._verdicts[key] = verdict
    self._ensure_read({text for _, *texts in undecided for text in texts})
    for key in undecided:
      reference, answer = (self._read[text] for text in key[1:])
      if isinstance(reference, str) or isinstance(answer, str):
        self._verdicts[key] = Verdict.UNGRADABLE, answer if isinstance(answer, str) else reference
      else:
        self._verdicts[key] = Verdict(equality.equal(reference, answer)), ""

  def _ensure_read(self, texts: set[str]) -> None:
    """Sees to it that `_read` has all of these; numbers and words need no process."""
    unread = set()
    for text in texts - self._read.keys():
      found = _plain(text)
      if found is None:
        unread.add(text)
      else:
        self._read[text] = found
    for text, outcome in self._workers.read(unread).items():
      self._read[text] = json.loads(outcome) if outcome.startswith("[") else outcome

  def _reading(self, text: str, dataset: str) -> list | str:
    return self._read[text] if dataset != "arithmetic" else _plain(text) or "unparsable"

  def reference_faults(self, references: Sequence[str], datasets: str | Sequence[str]) -> list[str]:
    """For each reference what keeps responses from being compared with it, '' for a sound one."""
    keys = list(zip(_per_row(datasets, references), references, strict=True))
    asked = {}
    for key in set(keys) - self._faults.keys():
      dataset, reference = key
      stated = answers.reference_answer(reference, dataset) or ""
      answer = _clean(stated, dataset)
      self._cleaned_references[key] = answer
      if not answer:
        long = len(stated) > _MAX_CHARACTERS
        self._faults[key] = f"has {len(stated)} characters, more than {_MAX_CHARACTERS}" if long else "states no answer"
      elif spelling.numeral(answer) is not None or dataset != "arithmetic" and spelling.is_words(answer):
        self._faults[key] = ""
      elif dataset == "arithmetic":
        self._faults[key] = f"is no number: {answer!r}"
      else:
        asked[key] = answer
    self._ensure_read(set(asked.values()))
    for key, answer in asked.items():
      found = self._read[answer]
      self._faults[key] = f"is {found}: {answer!r}" if isinstance(found, str) else ""
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
  if boxes.OR_ELSE in answer:  # of a reference: each for itself
    return f" {boxes.OR_ELSE} ".join(map(spelling.clean, answer.split(boxes.OR_ELSE)))
  return spelling.clean(answer)


def _decide(dataset: str, reference: str, answer: str) -> tuple[Verdict, str] | None:
  """The verdict where spelling decides."""
  equal = spelling.equal_as_text(reference, answer)
  if equal is not None:
    return Verdict(equal), ""
  if not answer or dataset == "arithmetic":
    return Verdict.UNGRADABLE, "unparsable"
  return None


def _plain(text: str) -> list | None:
  """The reading of a number or of words, which is simple enough for this process."""
  if (number := spelling.fraction(text)) is not None:
    return ["number", str(Fraction(*number))]
  return ["words", spelling.words(text)] if spelling.is_words(text) else None
