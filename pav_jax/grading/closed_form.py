r"""The value of a formula: latex2sympy parses it, SymPy evaluates it.

A number is exact where it is rational, else known to 60 digits, so that
1/3^80 and 1/3^81 differ and 3.141593 is not π. An expression in variables is
its values at fixed points; two that agree wherever both have one are taken for
equal (`equality`). The points are rational, of several sizes, and hang on the
name of the variable alone: at the first all variables are positive, at the
others the signs are mixed, two letters having different ones at some of them,
so that |x+y| is not |x|+|y|. Where a root, a logarithm or an inverse function
leaves the real numbers, laws such as ln a - ln b = ln(a/b) break: there an
expression has no value, or a doubtful one where all variables are positive.

Only worker processes import this module's libraries: a formula can make either
of them run for ever.
"""

from fractions import Fraction
import hashlib
import re

from pav_jax.grading.structure import Unreadable

DIGITS = 60
_POSITIVE, _BITS = 4, 6  # points where all variables are positive; the others are two for each bit
_PRIMED = re.compile(r"(\\[a-zA-Z]+|[a-zA-Z])(?:_(\w|\{[\w\s,]*\}))?('{1,9})")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?|\b[a-zA-Z]|\\(?:theta|alpha|beta)|\([^()]*\))\s*\^\\circ")
_PRODUCT = re.compile(r"(?<![\^_]\d)(?<=\d)\s*\(")
_OPERATOR = re.compile(
    r"\\text\s*\{\s*(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|lcm|max|min|sgn)\s*\}"
)
_BEFORE_OPENING = re.compile(r"(?:[-+*/=^({\[,<>]|\\lvert|\\cdot|\\times)\s*\Z")
_NO_FORMULA = re.compile(r"(?<![a-zA-Z\d])\d+(?:\.\d+)?\s*_|\\(?:[lcv]?dots|text|pmod|mod|bmod|to|mid|parallel|perp)(?![a-zA-Z])|\.\.\.|[?!]{2}")
_FUNCTION_NAMES = frozenset("fghFGHPC")
_FARTHEST = 3_000_000  # bits before or behind the point: Decimal ends at a million digits
_LARGEST = 12_000  # bits of a number that is written out


def read(latex: str) -> list:
  """The reading of a formula: "number", "decimal" or "function" (`reading`). Unreadable where it has no value."""
  expression = _parse(latex)
  symbols = _symbols(expression)
  if not symbols:
    return _number(expression)
  values = _complex_values(expression, symbols)
  known = [value for value, _ in values if value is not None]
  if len(known) < 3:
    raise Unreadable("no value at the points")
  if all(_vanishes(_evaluate(value - known[0]), abs(known[0])) for value in known[1:]):  # \sin^2 x + \cos^2 x
    return ["decimal", *_pair(known[0])]
  return ["function", [_written(*value) for value in values]]


def ray(left: str, right: str, *, directed: bool = False) -> list:
  """The values of left - right over the first of them that is not zero (directed: over its size): one for all multiples."""
  import sympy

  difference = sympy.together(_parse(left) - _parse(right))
  if not directed:
    difference = sympy.numer(difference)
  symbols = _symbols(difference)
  values = _complex_values(difference, symbols) if symbols else []
  first = next((value for value, _ in values if value is not None and value != 0), None)
  if first is None:
    raise Unreadable("an equation without variables")
  scale = abs(first) if directed else first
  return [_written(None if value is None else _evaluate(value / scale), real) for value, real in values]


def root(left: str, right: str) -> tuple[str, list] | None:
  """(name, reading) of the only variable of a linear equation, x - 3 = 0; None for any other equation."""
  import sympy

  difference = sympy.numer(sympy.together(_parse(left) - _parse(right)))
  symbols = _symbols(difference)
  if len(symbols) != 1 or not difference.is_polynomial(*symbols) or sympy.degree(difference, *symbols) != 1:
    return None
  slope, constant = sympy.Poly(difference, *symbols).all_coeffs()
  return symbols[0].name, _number(-constant / slope)


def _parse(latex: str):
  from latex2sympy2_extended import latex2sympy2
  import sympy
  from sympy.core.function import AppliedUndef

  text = _OPERATOR.sub(r"\\\1 ", latex)
  text = re.sub(r"\\text\s*\{\s*(?:i|e)\s*\}", lambda match: match[0][-2], text)
  text = _PRIMED.sub(lambda match: rf"{match[1]}_{{prime{len(match[3])}{(match[2] or '').strip('{}')}}}", text)  # the parser drops them
  text = _with_bars(text)
  text = _DEGREES.sub(r"(\\frac{\1\\cdot\\pi}{180})", text)
  text = _PRODUCT.sub(r"\\cdot(", text)
  if _NO_FORMULA.search(text):
    raise Unreadable("words in a formula")
  try:
    expression = latex2sympy2.latex2sympy(
        text, is_real=None, convert_degrees=False,
        normalization_config=latex2sympy2.NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False),
        conversion_config=latex2sympy2.ConversionConfig(lowercase_symbols=False),
    )  # fmt: skip
  except (MemoryError, RecursionError):
    raise
  except Exception as error:
    raise Unreadable("not LaTeX that can be parsed") from error
  if not isinstance(expression, sympy.Expr):
    raise Unreadable("no formula")
  # Applied to a number or a sum, x(3) is a product; f(x) is a variable of its own.
  for applied in expression.atoms(AppliedUndef):
    name = str(applied.func)
    product = len(applied.args) == 1 and len(name.lstrip("\\")) == 1 and name not in _FUNCTION_NAMES
    constant = sympy.pi if name == r"\pi" else sympy.Symbol(name)
    known = product or name == r"\pi"
    expression = expression.subs(applied, constant * applied.args[0] if known else sympy.Symbol(str(applied)))
  imaginary = [symbol for symbol in expression.free_symbols if symbol.name in ("i", "imath")]
  expression = expression.subs({symbol: sympy.I for symbol in imaginary})
  return expression.xreplace({x: sympy.Rational(str(x)) for x in expression.atoms(sympy.Float)}).doit()


def _with_bars(text: str) -> str:
  """'2|x|+3|y|' with bars that say where they open: the parser takes '|+3|' for a size, too."""
  parts = text.split("|")
  if len(parts) % 2 == 0:
    return text
  whole, level = parts[0], 0
  for part in parts[1:]:
    opens = level == 0 or bool(_BEFORE_OPENING.search(whole))
    level += 1 if opens else -1
    whole += (r"\lvert " if opens else r"\rvert ") + part
  return whole if level == 0 else text


def _symbols(expression) -> list:
  return sorted(expression.free_symbols, key=lambda symbol: symbol.name)


def _number(expression) -> list:
  import sympy

  if expression in (sympy.oo, -sympy.oo):
    return ["number", "inf" if expression == sympy.oo else "-inf"]
  if expression.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
    raise Unreadable("infinite")
  if expression.is_Rational:
    parts = int(expression.p), int(expression.q)
    if max(part.bit_length() for part in parts) > _LARGEST:
      return ["huge", hashlib.sha256(b"/".join(b"%x" % part for part in parts)).hexdigest()]
    return ["number", str(Fraction(*parts))]
  value = _evaluate(_real_roots(expression))
  if value is None:
    raise Unreadable("no number")
  return ["decimal", *_pair(value)]


def _real_roots(expression):
  """With the odd root of a negative number real, as school takes it."""
  import sympy

  return expression.replace(
      lambda x: x.is_Pow and x.base.is_negative and x.exp.is_Rational and x.exp.q % 2 == 1 and x.exp.q > 1,
      lambda x: (-1) ** x.exp.p * sympy.Pow(-x.base, x.exp))  # fmt: skip


def _evaluate(expression, point=None, digits: int = DIGITS):
  """The complex number that an expression is at a point, to that many digits; None where there is none. What vanishes is 0, not what was left over by rounding."""
  import sympy

  try:
    value = sympy.N(expression, digits + 10, subs=point, maxn=400)
  except (MemoryError, RecursionError):
    raise
  except Exception:  # poles, and whatever SymPy does not know
    return None
  real, imaginary = value.as_real_imag()
  if not (real.is_Float or real.is_Rational) or not (imaginary.is_Float or imaginary.is_Rational):
    return None
  size = max(abs(real), abs(imaginary))
  if any(x.is_Float and x != 0 and abs(x._mpf_[2] + x._mpf_[3]) > _FARTHEST for x in (real, imaginary)):
    return None  # e^{10^{10}}
  clean = [sympy.S.Zero if _vanishes(x, size) else x for x in (real, imaginary)]
  return clean[0] + sympy.I * clean[1]


def _vanishes(x, size) -> bool:
  return x == 0 or x.is_Float and x._prec < 20 or abs(x) < size * 10 ** -(DIGITS - 2)


def _complex_values(expression, symbols) -> list:
  """(value or None, whether no branch had to be chosen) at each point; doubtful ones only where all variables are positive."""
  branched, values = _branched(expression), []
  for number in range(_POSITIVE + 2 * _BITS):
    point = {symbol: _point(symbol.name, number) for symbol in symbols}
    real = all(_within(argument, point, low, high) for argument, low, high in branched)
    values.append((_evaluate(expression, point) if real or number < _POSITIVE else None, real))
  return values


def _branched(expression) -> list:
  """(argument, least, most) of all that has one real value between these and several complex ones elsewhere."""
  import sympy

  bounds = {sympy.log: (0, None), sympy.asin: (-1, 1), sympy.acos: (-1, 1), sympy.acosh: (1, None), sympy.atanh: (-1, 1)}
  found = []
  for node in sympy.preorder_traversal(expression):
    if node.is_Pow and not node.exp.is_integer:
      found.append((node.base, 0, None))
    elif node.func in bounds:
      found.append((node.args[0], *bounds[node.func]))
  return [bounded for bounded in found if bounded[0].free_symbols]


def _within(argument, point, low, high) -> bool:
  """Whether an expression is real there and between two numbers, which may be missing."""
  value = _evaluate(argument, point, 15)
  return value is not None and value.is_real and (low is None or value >= low) and (high is None or value <= high)


def _point(name: str, number: int):
  """A rational number that hangs on the variable's name, up to 1, 8 or 50 in size."""
  import sympy

  digest = int.from_bytes(hashlib.sha256(f"{name} {number}".encode()).digest()[:4], "big")
  size = (1, 8, 50)[number % 3]
  bit, flip = (number - _POSITIVE) % _BITS, number >= _POSITIVE + _BITS
  negative = number >= _POSITIVE and (sum(map(ord, name)) >> bit & 1) ^ flip
  return sympy.Rational(digest % 9973 + 7, 9991) * size * (-1 if negative else 1)


def _written(value, real: bool) -> list | None:
  return None if value is None else [*_pair(value), int(real)]


def _pair(value) -> list[str]:
  import sympy

  return [str(sympy.N(part, DIGITS)) if part != 0 else "0" for part in value.as_real_imag()]
