r"""The value of a formula: latex2sympy parses it, SymPy evaluates it.

A number is exact where it is rational, else known to 60 digits, so that
1/3^80 and 1/3^81 differ and 3.141593 is not π. An expression in variables is
its values at fixed points; two that agree at all of them are taken for equal.
The points are rational, of both signs and several sizes, and hang on the name
of the variable alone.

Only worker processes import this module's libraries: a formula can make either
of them run for ever.
"""

from fractions import Fraction
import hashlib
import re

from pav_jax.grading.structure import Unreadable

DIGITS = 60
_POINTS = 6
_DEGREES = re.compile(r"(\d+(?:\.\d+)?|\b[a-zA-Z]|\\(?:theta|alpha|beta)|\([^()]*\))\s*\^\\circ")
_PRODUCT = re.compile(r"(?<![\^_]\d)(?<=\d)\s*\(")
_OPERATOR = re.compile(
    r"\\text\s*\{\s*(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|lcm|max|min|sgn)\s*\}"
)
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
  values = _values(expression, symbols)
  if sum(value is not None for value in values) < 3:
    raise Unreadable("no value at the points")
  return ["function", values]


def ray(left: str, right: str, *, directed: bool = False) -> list:
  """The values of left - right over the first of them that is not zero (directed: over its size): one for all multiples."""
  import sympy

  difference = sympy.together(_parse(left) - _parse(right))
  if not directed:
    difference = sympy.numer(difference)
  symbols = _symbols(difference)
  values = _complex_values(difference, symbols) if symbols else []
  first = next((value for value in values if value is not None and value != 0), None)
  if first is None:
    raise Unreadable("an equation without variables")
  scale = abs(first) if directed else first
  ratios = [None if value is None else _evaluate(value / scale) for value in values]
  return [None if ratio is None else _pair(ratio) for ratio in ratios]


def _parse(latex: str):
  from latex2sympy2_extended import latex2sympy2
  import sympy
  from sympy.core.function import AppliedUndef

  text = _OPERATOR.sub(r"\\\1 ", latex)
  text = re.sub(r"\\text\s*\{\s*(?:i|e)\s*\}", lambda match: match[0][-2], text)
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


def _evaluate(expression):
  """A complex number to DIGITS digits; None where there is none. What vanishes is 0, not what was left over by rounding."""
  import sympy

  try:
    value = sympy.N(expression, DIGITS + 10, maxn=400)
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


def _values(expression, symbols) -> list:
  return [None if value is None else _pair(value) for value in _complex_values(expression, symbols)]


def _complex_values(expression, symbols) -> list:
  points = [{symbol: _point(symbol.name, number) for symbol in symbols} for number in range(_POINTS)]
  return [_evaluate(expression.subs(point)) for point in points]


def _point(name: str, number: int):
  """A rational number that hangs on the variable's name: 0 to 1, to 8, to 50, and their negatives."""
  import sympy

  digest = int.from_bytes(hashlib.sha256(f"{name} {number}".encode()).digest()[:4], "big")
  size = (1, 8, 50)[number % 3]
  return sympy.Rational(digest % 9973 + 7, 9991) * size * (-1) ** (number >= 3)


def _pair(value) -> list[str]:
  import sympy

  return [str(sympy.N(part, DIGITS)) if part != 0 else "0" for part in value.as_real_imag()]
