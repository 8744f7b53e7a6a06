"""What the launcher's tests share: the command, a server that writes down what it is sent, programs that do likewise."""

import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# The launcher is a script: its files know one another as siblings.
sys.path.append(str(ROOT / "launch"))


@pytest.fixture
def launch(tmp_path):
  """launch(*arguments, cwd=ROOT, **environment): the command's end; interrupt_at: at these files it is sent a signal."""
  def run(*arguments, cwd=ROOT, interrupt_at=(), by=signal.SIGINT, **environment):
    # XManager's list of experiments, gcloud's and kubectl's settings live in the home directory.
    env = {**os.environ, "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "kubeconfig"), **environment}
    command = [sys.executable, str(ROOT / "launch/xm_launch.py"), *arguments]
    # A shell's background jobs, and so perhaps these tests, are deaf to SIGINT and hand that on.
    hear = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          preexec_fn=hear) as process:
      while interrupt_at and process.poll() is None:
        if all(path.exists() for path in interrupt_at):
          process.send_signal(by)
          break
        time.sleep(0.02)
      out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
  return run


@pytest.fixture
def refused(launch):
  """refused(*arguments, **environment): the one line of a command that ends with status 2 and says nothing else."""
  def run(*arguments, **environment):
    done = launch(*arguments, **environment)
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("error: ").rstrip("\n")
  return run


class Server:
  """Writes requests down. answer(path, body) gives (status, object) for each."""

  def __init__(self):
    self.requests = []  # (method, path, headers, body)
    self.answer = lambda path, body: (200, body)
    outer = self

    class Handler(http.server.BaseHTTPRequestHandler):

      def _take(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        outer.requests.append((self.command, self.path, self.headers, body))
        status, said = outer.answer(self.path, body)
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

      do_GET = do_POST = _take

      def log_message(self, *_):
        pass

    self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server():
  it = Server()
  thread = threading.Thread(target=it.http.serve_forever, kwargs={"poll_interval": 0.01})
  thread.start()
  yield it
  it.http.shutdown()
  it.http.server_close()
  thread.join()


@pytest.fixture
def program(tmp_path):
  """program(name, code): an executable NAME in tmp_path/bin that appends its arguments to the list it returns a reader of."""
  def make(name, code=""):
    record, path = tmp_path / f"{name}.jsonl", tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport json, os, pathlib, sys\nwith open({str(record)!r}, 'a') as f:\n"
                    f"  print(json.dumps(sys.argv[1:]), file=f)\n{code}\n")
    path.chmod(0o755)
    return lambda: [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
  return make
