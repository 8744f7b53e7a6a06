"""The house: floors, doors, sizes, and that every knob is read."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pav_jax"
FLOORS = {"models": 0, "training": 0, "grading": 1, "problems": 1, "rollouts": 2, "values": 3, "verifiers": 4, "search": 5,
          "policy": 5, "evaluation": 6, "pods": 6}
# Folders of one floor that may lean on one another: networks are restored by the machinery of checkpoints, and a
# problem's reference is one that the grader can compare with.
SAME_FLOOR = {("models", "training"), ("problems", "grading")}
APART = {"didactic": {"training"}}
# The paper's equations, pure functions on arrays: what stands apart takes them from the one place where they are.
EVERYBODYS = "pav_jax.values.equations"
DOORS = {
    "gemma": (),  # it changes flax for the whole process: tests alone compare with it (tests/gemma_library.py)
    "safetensors": ("pav_jax/models/formats/huggingface.py",),
    "gguf": ("pav_jax/models/formats/gguf_file.py",),
    "orbax": ("pav_jax/training/checkpoint.py",),
    "tensorflow": ("pav_jax/problems/tasks.py", "pav_jax/problems/datasets/"),
    "tensorflow_datasets": ("pav_jax/problems/tasks.py", "pav_jax/problems/datasets/"),
    "seqio": ("pav_jax/problems/tasks.py",),
    "pyarrow": ("pav_jax/problems/files/",),
    "xmanager": ("launch/",),
    "kubernetes": ("launch/jobset.py",),
}
FILES = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted(
    [*PACKAGE.rglob("*.py"), *ROOT.glob("configs/**/*.py"), *ROOT.glob("launch/**/*.py")])}


def _imports(tree):
  """Dotted names of everything imported anywhere in a file, late imports too."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, "relative imports hide the floor"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _may(folder, target):
  if folder in APART or target in APART:
    return target in APART.get(folder, ())
  return FLOORS[target] < FLOORS[folder] or (folder, target) in SAME_FLOOR


@pytest.mark.parametrize("path", [path for path in FILES if path.count("/") > 1 and path.startswith("pav_jax/")])
def test_a_folder_imports_only_from_floors_below(path):
  folder = path.split("/")[1]
  assert folder in FLOORS or folder in APART, f"{folder}/ is on no floor"
  for name in _imports(FILES[path]):
    parts = name.split(".")
    if parts[0] == "pav_jax" and len(parts) > 2 and parts[1] != folder and parts[1] != "errors" and name != EVERYBODYS:
      assert _may(folder, parts[1]), f"{path} imports {name}"


@pytest.mark.parametrize("library", DOORS)
def test_heavy_libraries_have_one_door(library):
  users = [path for path, tree in FILES.items() if any(name.split(".")[0] == library for name in _imports(tree))]
  assert all(path.startswith(DOORS[library]) for path in users), users


def test_launch_and_configs_know_nothing_of_the_package():
  for path, tree in FILES.items():
    if not path.startswith("pav_jax/"):
      assert not [name for name in _imports(tree) if name.split(".")[0] == "pav_jax"], path


def test_sizes():
  for path, tree in FILES.items():
    lines = (ROOT / path).read_text().count("\n")
    assert lines <= 350, f"{path}: {lines} lines have a second thing in them"
    for node in ast.walk(tree):
      if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        length = node.end_lineno - node.lineno + 1
        assert length <= 80, f"{path}: {node.name} has {length} lines"


def test_no_two_test_files_have_one_name():
  """pytest imports a test file by its bare name: with two of one name it collects nothing."""
  names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
  assert len(set(names)) == len(names), sorted(name for name in set(names) if names.count(name) > 1)


def test_files_are_written_and_paths_made_in_one_place():
  """What goes around training/files.py knows no bucket, and leaves half a file on a full disk."""
  for path, tree in FILES.items():
    if path.startswith("pav_jax/") and path != "pav_jax/training/files.py":
      called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
      assert not [name for name in called if name == "epath.Path" or name.split(".")[-1] in (
          "write_text", "write_bytes", "mkdir", "makedirs", "copyfile")], path


def test_packages_export_nothing():
  """But pav_jax itself, which names what it promises and reads it when it is used."""
  for path, tree in FILES.items():
    if path.endswith("__init__.py"):
      assert list(_imports(tree)) == ["importlib"] * (path == "pav_jax/__init__.py"), path


def _of_config(node):
  """Whether an expression reads the config: run.config..., knobs..., section..., through names and subscripts."""
  while isinstance(node, (ast.Attribute, ast.Subscript)):
    if isinstance(node, ast.Attribute) and node.attr == "config":
      return True
    node = node.value
  return isinstance(node, ast.Name) and node.id in ("config", "knobs", "section", "search")


def _read_names():
  """(names read one by one off a config, names of sections spread whole with ** or dict()); to check a knob is not to read it."""
  names, whole = set(), set()
  for path, tree in FILES.items():
    if not path.startswith("pav_jax/"):
      continue
    checks = {id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) and function.name.startswith("check")
              for node in ast.walk(function)}
    for node in ast.walk(tree):
      if id(node) in checks:
        continue
      if isinstance(node, ast.Attribute) and _of_config(node.value):
        names.add(node.attr)
      # section[name], with the names given as strings near it
      if isinstance(node, ast.For) and any(isinstance(x, ast.Subscript) and _of_config(x.value) for x in ast.walk(node)):
        names |= {x.value for x in ast.walk(node.iter) if isinstance(x, ast.Constant) and isinstance(x.value, str)}
      spread = []
      if isinstance(node, ast.Call):
        spread = [k.value for k in node.keywords if k.arg is None]
        if isinstance(node.func, ast.Name) and node.func.id == "dict":
          spread += node.args
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("items", "to_dict"):
          spread.append(node.func.value)
      whole |= {x.attr for x in spread if isinstance(x, ast.Attribute) and _of_config(x.value)}
  return names, whole


def _leaves(config, path=()):
  for key, value in config.items():
    if hasattr(value, "items"):
      yield from _leaves(value, (*path, key))
    else:
      yield (*path, key)


def test_every_stage_has_a_check():
  from pav_jax import main
  for path in {*main.STAGES.values(), *(module for modules in main.ALONE.values() for module in modules)}:
    functions = {node.name: node for node in FILES[path.replace(".", "/") + ".py"].body if isinstance(node, ast.FunctionDef)}
    assert [x.arg for x in functions["check"].args.args] == ["config", "root"], path


def test_every_knob_is_read():
  from configs import default
  names, whole = _read_names()
  # Named by a value: a split of problems, a kind of verifier.
  names |= {"train", "validation", "test"}
  unread = [".".join(leaf) for leaf in _leaves(default.get_config())
            if leaf[-1] not in names and not whole & set(leaf[:-1])]
  assert not unread, unread
