r"""Boxes: what a text's `\boxed{}` state together. The one place for this rule; `problems` asks here, too.

1. The last box counts. One that stays open behind it takes it back: the text
   was changing its answer when it broke off. One behind 'not' is none, and a
   text that has no other states nothing.
2. Boxes before it count with it where the text adds them up: nothing but
   'and', 'or', a comma or the next `x =` stands between them, or the text goes
   on to another case ('If $r = -1$, then ...', 'another angle is ...').
   After anything else ('so', 'wait', 'alternatively') the later one replaces
   the earlier.
3. Boxes joined by 'or' may be one value in two spellings: a set. All others
   are a list.
4. A text that says that either box is acceptable accepts each alone
   (`OR_ELSE`; in references only).
"""

import re
from typing import NamedTuple

OR_ELSE = r"\text{or else}"

_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s{0,20}(?P<open>\{)|(?![a-zA-Z{]))")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_LAYOUT = re.compile(r"\\text\s*\{([^{}]{0,20})\}|\\[()\[\]]|[$&]")
# 'and', ', or x =', ', \\ a + c - b =': what adds a box to the one before it.
_JOINED = re.compile(r"\s*[.,;]{0,2}\s*(?P<word>and|or)?\s*(?:[a-zA-Z]\w{0,3}(?:\([a-z]\))?\s*=)?\s*")
_NEXT_LINE = re.compile(r"\s*,\s*\\\\[^=]{0,80}=.{0,200}", re.DOTALL)
_NEXT_CASE = re.compile(r"[.,;\s]*(?:If|When|For)\b", re.IGNORECASE)
_ANOTHER = re.compile(r"\b(?:another|other|third)\s+(?!way|method|approach|solution)", re.IGNORECASE)
_REPLACED = re.compile(
    r"\b(?:wait|actually|mistake|instead|correct\w*|wrong|sorry|should|alternative\w*|could|check\w*|re\w*check\w*|no)\b",
    re.IGNORECASE,
)
_ACCEPTABLE = re.compile(r"\beither\b[^.]{0,40}\b(?:acceptable|correct answer)|\balso\b[^.]{0,30}\baccept", re.IGNORECASE)
_ALSO = re.compile(r"[$.\s]{0,5}is also\b[^.]{0,20}\baccept")
_BASE = re.compile(r"_\{?\d{1,2}\}?$")
_NOT = re.compile(r"(?<!can )(?<!could )(?<!must )(?<!may )\b(?:not|isn['\u2019]t|rather than|instead of)[\s$\\(\[*]{1,9}\Z", re.IGNORECASE)
_WINDOW, _BETWEEN, _MOST = 300, 500, 10


class Boxed(NamedTuple):
  start: int  # of the first box that counts; -1 without one
  content: str | None  # '' for an empty box, None without one that closes
  cut_off: bool  # whether a later box stays open, or the text denies all of them


def boxed(text: str) -> Boxed:
  """What the boxes of a text state, in time linear in the text."""
  found, cut_off = _all(text)
  stated = [box for box in found if not _NOT.search(text, max(0, box[0] - 40), box[0])]
  found, cut_off = stated or found, cut_off or bool(found and not stated)
  if cut_off or not found:
    return Boxed(found[-1][0] if found else -1, found[-1][2] if found else None, cut_off)
  together, words = [found[-1]], set()
  after = text[found[-1][1] :][:_BETWEEN]
  for box in reversed(found[-_MOST:-1]):
    word = _adds(text[box[1] : together[0][0]], also=bool(_ALSO.match(after)))
    if word is None or not box[2]:
      break
    words.add(word)
    together.insert(0, box)
  contents = list({_BASE.sub("", content): content for *_, content in together}.values())  # '28 or 28_9' is one
  joint = f" {OR_ELSE} " if _ACCEPTABLE.search(after) else r" \text{ or } " if "or" in words else ","
  return Boxed(together[0][0], joint.join(contents), False)


def _all(text: str) -> tuple[list[tuple[int, int, str]], bool]:
  """(start, end, content) of every box that closes and stands in no other, in order; whether a later one stays open."""
  matches = list(_BOX.finditer(text))
  closing, stack = {}, []
  # One pass pairs all braces, so that a hundred thousand open boxes cost no more than one.
  for brace in _BRACE.finditer(text, matches[0].start()) if matches else ():
    if brace.group() == "{":
      stack.append(brace.start())
    elif brace.group() == "}" and stack:
      closing[stack.pop()] = brace.start()
  found, end, cut_off = [], 0, False
  for box in matches:
    if box["open"] and box.end() - 1 not in closing:
      cut_off = True
    elif box.start() >= end:
      if box["open"]:
        end = closing[box.end() - 1] + 1
        content = text[box.end() : end - 1]
      else:  # '\boxed 5': TeX takes one token, MATH's authors mean up to the '$'.
        line = text[box.end() : box.end() + _WINDOW].partition("\n")[0]
        content = line.partition("$")[0] if "$" in line else "".join(line.split()[:1])
        end = box.end() + len(content)
      found.append((box.start(), end, content.strip()))
      cut_off = False
  return found, cut_off


def _adds(between: str, also: bool) -> str | None:
  """'and' or 'or' where the box behind this text is one more answer; None where it replaces the one before.

  also: whether the text says of the last box that it is accepted, too.
  """
  if len(between) > _BETWEEN or also:
    return "and" if also and len(between) <= _BETWEEN else None
  plain = _LAYOUT.sub(lambda match: f" {match[1] or ''} ", between)
  joined = _JOINED.fullmatch(plain)
  if joined and plain.strip(" .\n\r\t"):
    return joined["word"] or "and"
  if _REPLACED.search(plain):
    return None
  return "and" if _NEXT_LINE.fullmatch(plain) or _NEXT_CASE.match(plain) or _ANOTHER.search(plain) else None
