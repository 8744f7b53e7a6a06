"""Paths, local or in a bucket (gs://...), and the only functions that write files.

A path is an etils.epath.Path, made by `path`. What is written is written whole
or not at all, and whatever a disk or a bucket refuses is a UserError of one
line that names the file. A bucket has no folders to make, and its objects
appear when their upload ends; locally a file is written beside its place and
renamed.
"""

import contextlib
import datetime
import fcntl
import hashlib
import importlib.util
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator

from etils import epath

from pav_jax.errors import UserError

# epath would reach a bucket through TensorFlow, 8 seconds and 1 GB in every process, and tell failures by its own errors.
os.environ.setdefault("EPATH_USE_TF", "false")
# The package that reaches what stands behind a scheme.
_CLIENTS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}
_SEAL = "checksum"


def path(spec: str | os.PathLike) -> epath.Path:
  """The path meant by a flag: a URL as it is, anything else absolute. UserError for a scheme that nothing here reaches."""
  text = os.fspath(spec)
  scheme, found, _ = text.partition("://")
  if not found:
    return epath.Path(os.path.abspath(os.path.expanduser(text)))
  if scheme not in _CLIENTS:
    raise UserError(f"{text}: {scheme}:// is none of {', '.join(f'{x}://' for x in _CLIENTS)}, nor a local path")
  if importlib.util.find_spec(_CLIENTS[scheme]) is None:
    raise UserError(f"{text}: {scheme}:// needs the package {_CLIENTS[scheme]}")
  import fsspec
  # A listing kept from before would hide what another process or client (tensorstore) has written since.
  fsspec.config.conf.setdefault({"gs": "gcs"}.get(scheme, scheme), {})["use_listings_cache"] = False
  logging.getLogger(_CLIENTS[scheme]).setLevel(logging.CRITICAL)  # It logs a traceback of what it raises.
  return epath.Path(text)


def is_remote(path: epath.Path) -> bool:
  """Whether the path is a URL."""
  return "://" in os.fspath(path)


@contextlib.contextmanager
def told(path: epath.Path, what: str) -> Iterator[None]:
  """What the file system raises in this block is a UserError, `PATH cannot be WHAT: why`; a bucket's clients raise anything."""
  try:
    yield
  except UserError:
    raise
  except Exception if is_remote(path) else OSError as error:
    raise UserError(f"{path} cannot be {what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
  """What an error says, in one line that is not too long: it begins with what was done, and ends with why that failed."""
  text = getattr(error, "strerror", None) or ("no such file or bucket" if isinstance(error, FileNotFoundError) else str(error))
  line = next((" ".join(line.split()) for line in str(text).splitlines() if line.strip()), type(error).__name__)
  return line if len(line) <= 300 else f"{line[:100]} ... {line[-195:]}"


def folder(path: epath.Path) -> epath.Path:
  """The same path, a folder now. UserError if it cannot be made."""
  if not is_remote(path):
    with told(path, "made a folder"):
      path.mkdir(parents=True, exist_ok=True)
  return path


def exists(path: epath.Path) -> bool:
  """Whether there is a file or folder of that name; UserError if that cannot be seen."""
  with told(path, "read"):
    return path.exists()


def require_file(path: str):
  """UserError unless there is a local file of that name, to be read more than once (so no pipe)."""
  if not os.path.exists(path):
    raise UserError(f"there is no file {path}")
  if not os.path.isfile(path):
    raise UserError(f"{path} is no file but {'a folder' if os.path.isdir(path) else 'a pipe or a device, which is read only once'}")


def names_below(path: epath.Path) -> Iterator[str]:
  """The names of all files in a folder and those inside it, without their folders'; none if there is no such folder."""
  with told(path, "read"):
    for inner in path.iterdir() if path.is_dir() else ():
      yield from names_below(inner) if inner.is_dir() else [inner.name]


def read(path: epath.Path) -> bytes:
  """A file's content. UserError if it cannot be read."""
  with told(path, "read"):
    return path.read_bytes()


def write(path: epath.Path, content: bytes | str):
  """Writes a file whole or not at all, and the folders above it. UserError if it cannot be written."""
  content = content.encode() if isinstance(content, str) else content
  if is_remote(path):
    with told(path, "written"):
      path.write_bytes(content)
    return
  folder(path.parent)
  partial = path.parent / f"{path.name}.partial"
  with told(path, "written"):
    try:
      partial.write_bytes(content)
      os.replace(partial, path)
    except OSError:
      with contextlib.suppress(OSError):  # A full disk needs the room.
        os.unlink(partial)
      raise


def append(path: epath.Path, text: str):
  """Adds text to the end of a file; in a bucket, where nothing can be added to, writes all of it anew."""
  if is_remote(path):
    write(path, (read(path) if exists(path) else b"") + text.encode())
    return
  folder(path.parent)
  with told(path, "written"), path.open("a") as file:
    file.write(text)


def modified(path: epath.Path) -> float:
  """When a file was written, in seconds since 1970."""
  with told(path, "read"):
    # epath asks for the owner's name, which a container's user need not have.
    return float(path.stat().mtime) if is_remote(path) else os.stat(path).st_mtime


def digest(content: bytes) -> str:
  """sha256, in hex."""
  return hashlib.sha256(content).hexdigest()


def sealed(value: dict) -> dict:
  """The JSON object with a checksum of the rest of it, by which `opened` sees damage that leaves it JSON."""
  return {**value, _SEAL: digest(json.dumps(value, sort_keys=True).encode())}


def opened(value, path: epath.Path) -> dict:
  """What was sealed; UserError, which names the path, for anything else. One of an earlier version has no checksum."""
  if not isinstance(value, dict):
    raise UserError(f"{path} is damaged: it holds no JSON object")
  rest = {key: x for key, x in value.items() if key != _SEAL}
  if value.get(_SEAL, sealed(rest)[_SEAL]) != sealed(rest)[_SEAL]:
    raise UserError(f"{path} is damaged: its checksum is another")
  return rest


def write_json(path: epath.Path, value: dict):
  """Writes a JSON object, sealed."""
  write(path, json.dumps(sealed(value), indent=1, sort_keys=True) + "\n")


def read_json(path: epath.Path) -> dict:
  """What `write_json` wrote. UserError if it is not that any more."""
  try:
    return opened(json.loads(read(path)), path)
  except ValueError as error:
    raise UserError(f"{path} is damaged: {reason(error)}") from error


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
  """Keeps another run out of a local working directory while the block lasts; however this process ends, the lock ends with it.

  Raises UserError if another run is in it, and says which. In a bucket there is no such lock: nothing there ends with
  a process, and a lease that must be renewed would stop runs that are alone.
  """
  if is_remote(workdir):
    yield
    return
  with _locked(folder(workdir) / ".lock", f"--workdir {workdir}: another run is in it", "a second run in this workdir", "--workdir"):
    yield


@contextlib.contextmanager
def lock_output(output: epath.Path) -> Iterator[None]:
  """Keeps other commands from writing the same local file while the block lasts. UserError if one is, which says which."""
  place = output.parent / f"{output.name}.lock"
  with _locked(place, f"--output {output}: another command is writing it", "a second command with this output", "--output"):
    try:
      yield
    finally:
      with contextlib.suppress(OSError):
        os.unlink(place)


@contextlib.contextmanager
def _locked(place: epath.Path, taken: str, second: str, flag: str) -> Iterator[None]:
  with contextlib.ExitStack() as stack:
    with told(place, "written"):
      file = stack.enter_context(open(place, "ab+", buffering=0))
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # Whoever had it may have removed the file after we opened it; then another has a file of its own.
      ours = os.path.exists(place) and os.path.samestat(os.fstat(file.fileno()), os.stat(place))
    except BlockingIOError:
      ours = False
    except OSError as error:  # A shared disk without locks is no reason not to run.
      ours = True
      print(f"{place} cannot be locked ({reason(error)}): {second} would not be noticed", file=sys.stderr)
    if not ours:
      file.seek(0)
      raise UserError(f"{taken} ({file.read().decode().strip()}); wait for it to end, or choose another {flag}")
    since = datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")[:19]
    with told(place, "written"):
      file.truncate(0)
      file.write(f"process {os.getpid()} on {socket.gethostname()} since {since} UTC\n".encode())
    yield
