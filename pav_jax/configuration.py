"""The config of a run: a file, and flags over it. Whatever is wrong with either is told in one line, with the key that was meant.

  1. The file's keys and types are those of configs/default.py; a figure's, those of its own file in configs/didactic.
  2. A flag names one key; a section is not given as a whole, since ml_collections would put the dict in its place.
  3. What the file leaves to the command line (errors.REQUIRED) must be given there.

The project's own files are those of configs/, which lies beside the package in
a checkout and inside of it where it is installed. They say `from configs import
default`, as a user's file may: while a file is read, that name is theirs, and
otherwise nobody's (`importing`).
"""

import contextlib
import difflib
import functools
import importlib.util
import pathlib
import re
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from pav_jax.errors import REQUIRED
from pav_jax.errors import UserError

_PACKAGE = pathlib.Path(__file__).parent
_CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
DEFAULT = str(_CONFIGS / "default.py")
# Sections whose keys a file names itself; their values are texts.
_FREE = ("config.search.provers", "config.rl.provers")
# Sections with a key for every arm of RL, to which a file may add ARM@NAME.
_BY_ARM = ("config.rl.lr_factor", "config.rl.kl_factor")


def path_in(argv: list[str]) -> str:
  """What --config= says on a command line; '' without one."""
  after = dict(zip(argv, argv[1:]))
  return next((a.partition("=")[2] for a in argv if a.startswith(("--config=", "-config="))), after.get("--config", after.get("-config", "")))


def named(path: str) -> str:
  """The file that --config means: a file, or one of the package's own, as `quickstart`, `smoke:gsm8k` or configs/quickstart.py."""
  name, colon, argument = path.partition(":")
  places = (pathlib.Path(name), _CONFIGS.parent / name, _CONFIGS / f"{name}.py")
  return next((str(place) for place in places if place.is_file()), name) + colon + argument if name else path


def with_file(argv: list[str]) -> list[str]:
  """The command line with the file that --config means in its place."""
  path = path_in(argv)
  is_it = lambda before, a: a in (f"--config={path}", f"-config={path}") or a == path and before in ("--config", "-config")
  return [a.removesuffix(path) + named(path) if is_it(before, a) else a for before, a in zip(["", *argv], argv)]


@contextlib.contextmanager
def importing(path: str) -> Iterator[None]:
  """Lets the file that --config means say `from configs import default`.

  Files of configs/ import one another, whatever else is called configs. A
  user's file gets a package configs of the user's own where there is one.
  """
  name = named(path).partition(":")[0]
  if pathlib.Path(name).resolve().is_relative_to(_CONFIGS.resolve()) or not _is_package("configs"):
    mine = lambda: [key for key in sys.modules if key.partition(".")[0] == "configs"]
    before = {key: sys.modules.pop(key) for key in mine()}
    spec = importlib.util.spec_from_file_location("configs", _CONFIGS / "__init__.py", submodule_search_locations=[str(_CONFIGS)])
    sys.modules["configs"] = importlib.util.module_from_spec(spec)
    try:
      yield
    finally:
      for key in mine():
        del sys.modules[key]
      sys.modules.update(before)
  else:
    yield


def _is_package(name: str) -> bool:
  """Whether a package of that name can be imported; a mere folder is none."""
  try:
    spec = importlib.util.find_spec(name)
  except (ImportError, ValueError):
    return False
  return spec is not None and spec.origin is not None


def load(path: str) -> config_dict.ConfigDict:
  """What the file's get_config gives before any flag; a mistake in it is the user's to hear of in one line."""
  name, _, argument = named(path).partition(":")
  if not pathlib.Path(name).is_file():
    raise UserError(f"--config: there is no file {name}")
  try:
    with importing(path):
      config = _get_config(name)(*([argument] if argument else []))
  except Exception as error:  # whatever a user's file may raise
    raise UserError(f"--config={path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
  if not isinstance(config, config_dict.ConfigDict):
    raise UserError(f"--config={path}: get_config gives a {type(config).__name__}, not a ConfigDict")
  base = _base(config, path)
  with importing(DEFAULT):
    usual = _get_config(_CONFIGS.parent / base)()
  _compare(config, usual, "config", f"--config={path}", base)
  return config


def _get_config(path: str | pathlib.Path) -> Callable:
  spec = importlib.util.spec_from_file_location("pav_jax_config", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config


def _base(config: config_dict.ConfigDict, path: str) -> str:
  """The file of the config whose keys and types this one must have."""
  if "figure" not in config:
    return "configs/default.py"
  figures = sorted({file.stem for file in (_CONFIGS / "didactic").glob("*.py")} - {"__init__", "base"})
  if config.figure not in figures:
    raise UserError(f"--config={path}: config.figure {config.figure!r} is none of {', '.join(figures)}")
  return f"configs/didactic/{config.figure}.py"


def _compare(found: config_dict.ConfigDict, wanted: config_dict.ConfigDict, name: str, where: str, base: str):
  if name in _FREE:
    wanted = dict.fromkeys(found, "")
  if name in _BY_ARM:
    wanted = {key: wanted[key.partition("@")[0]] for key in [*wanted, *found] if key.partition("@")[0] in wanted}
  for key, value in found.items():
    if key not in wanted:
      raise UserError(f"{where}: {name}.{key} is no key of a config{_meant(key, wanted, f'{name}.')}")
    if isinstance(value, tuple) and isinstance(wanted[key], tuple) and wanted[key] and not all(_alike(x, wanted[key][0]) for x in value):
      raise UserError(f"{where}: {name}.{key} {value} is not a tuple of {_kind(wanted[key][0])}")
    if not _alike(value, wanted[key]):
      raise UserError(f"{where}: {name}.{key} is of type {_kind(value)}, not {_kind(wanted[key])}")
    if _is_section(value):
      _compare(value, wanted[key], f"{name}.{key}", where, base)
  for key in wanted:
    if key not in found:
      raise UserError(f"{where}: {name}.{key} is missing: begin with get_config() of {base} and change what differs")


def _is_section(value) -> bool:
  return isinstance(value, config_dict.ConfigDict)


def _alike(value, wanted) -> bool:
  return _kind(value) == _kind(wanted) or type(value) is int and isinstance(wanted, float)


def _kind(value) -> str:
  return "section" if _is_section(value) else type(value).__name__


def check_flags(arguments: list[str], config: config_dict.ConfigDict, path: str):
  """UserError for a --config.... flag that names no single key of the config."""
  for argument in arguments:
    flag = re.fullmatch(r"--?(?:no)?config\.([^=]+)(?:=.*)?", argument, re.DOTALL)
    if not flag:
      continue
    key = flag[1]
    if "[" in key:
      raise UserError(f"command line: --config.{key}: a tuple is given whole, as --config.{key.partition('[')[0]}=2,4")
    value = config
    for part in key.split("."):
      if not _is_section(value) or part not in value:
        raise UserError(f"command line: {path} has no key {key}{_meant(key, config, '--config.')}")
      value = value[part]
    if _is_section(value):
      raise UserError(f"command line: --config.{key} is a section: give its keys one by one, as "
                      f"--config.{key}.{next(leaves(value))[0]}=...")


def _meant(key: str, config: config_dict.ConfigDict, prefix: str) -> str:
  """`; did you mean ...?`, with what the user is likeliest to have meant; '' where nothing comes near."""
  keys = [key for key, _ in leaves(config)] + [key for key, value in config.items() if _is_section(value)]
  near = functools.partial(difflib.get_close_matches, key, keys, n=1)
  found = near(cutoff=0.8) or [k for k in keys if k.rpartition(".")[2] == key.rpartition(".")[2]][:3] or near(cutoff=0.5)
  return f"; did you mean {' or '.join(prefix + k for k in found)}?" if found else ""


def leaves(config: config_dict.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Every key that is no section, by its dotted name, with its value."""
  for key, value in config.items():
    if _is_section(value):
      yield from leaves(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value


def read_tuples(config: config_dict.ConfigDict, given: Mapping[str, Any], default: config_dict.ConfigDict):
  """`4`, `1,2` and `(1, 2)` all give a tuple of the default's type, where a flag gives one; ml_collections leaves `1,2` one string."""
  with config.unlocked():
    config.update_from_flattened_dict({key: _tuple(key, value, default) for key, value in given.items() if isinstance(value, tuple)})


def _tuple(key: str, value: tuple, default: config_dict.ConfigDict) -> tuple:
  usual = functools.reduce(lambda part, name: part[name], key.split("."), default)
  kind = type(usual[0]) if usual else str
  parts = [part for item in value for part in (item.split(",") if isinstance(item, str) else [item])]
  try:
    return tuple(kind(part.strip() if isinstance(part, str) else part) for part in parts if part != "")
  except (TypeError, ValueError) as error:
    raise UserError(f"--config.{key}: {value} is not a tuple of {kind.__name__}") from error


def require_given(config: config_dict.ConfigDict):
  """UserError for a key that the config leaves to the command line and that is not given there."""
  for key, value in leaves(config):
    if value == REQUIRED:
      raise UserError(f"--config.{key}=... is missing: this config has no default for it")
