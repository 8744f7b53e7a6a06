"""Cloud TPU: a work unit as one queued resource, through gcloud.

  1. gcloud puts the request into the queue; when the slice is there, every host
     boots and runs the startup script as root.
  2. The script makes an environment once, installs the packages, and runs the
     command; all of it again after a failure, at most --max_restarts times, and
     after every reboot; not after status 2, which is a user's mistake.
  3. The slice stays, and costs, until it is deleted; a spot slice that was taken
     does not come back. Delete it and launch the same line again: the run goes on
     from its workdir.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile

from errors import LaunchError
from slices import Slice

_ROOT = "/opt/pav_jax"

_SCRIPT = """\
#!/bin/bash
# Runs on every host of the slice, at every boot.
set -uo pipefail
export HOME=/root PYTHONUNBUFFERED=1 PATH={root}/environment/bin:$PATH
install() {{
  [ -e {root}/installed ] || {{
    mkdir -p {root} && cd {root} &&
    python3 -m pip install --quiet uv &&
    # The machine's own Python is too old.
    python3 -m uv venv --quiet --clear --python 3.12 environment &&
{fetch}    python3 -m uv pip install --quiet --python environment/bin/python {packages} &&
    touch installed
  }}
}}
run() {{
  # The package has its configs with it, and finds them by name.
  cd {root} &&
  {command}
}}
for attempt in $(seq 0 {max_restarts}); do
  status=1
  if install; then
    run
    status=$?
  fi
  echo "pav_jax: attempt $attempt ended with status $status"
  case $status in 0|2) break ;; esac
done
exit $status
"""


def script(command: str, packages: list[str], max_restarts: int, root: str = _ROOT) -> str:
  """The startup script that installs packages in root and runs `command`, a line of shell.

  packages: what pip takes (git+https://...@REVISION, a wheel's address, a
  requirement), or a wheel or source archive in a bucket, gs://...
  """
  fetched = [package for package in packages if package.startswith("gs://")]
  fetch = "".join(f"    gcloud storage cp {shlex.quote(package)} . &&\n" for package in fetched)
  names = [f"./{package.rpartition('/')[2]}" if package in fetched else package for package in packages]
  return _SCRIPT.format(root=shlex.quote(root), fetch=fetch, packages=shlex.join([*names, "jax[tpu]"]),
                        command=command, max_restarts=max_restarts)


def arguments(name: str, tpu: Slice, *, project: str, zone: str, service_account: str, spot: bool) -> list[str]:
  """The command that asks for the slice; the startup script lies beside it in `NAME.sh`.

  service_account: the e-mail of who may write to the workdir; '' for the
  project's default. Raises LaunchError for a shape that Cloud TPU has no name for.
  """
  if not tpu.accelerator_type:
    raise LaunchError(f"--tpu: queued resources are asked for by the number of chips, and {tpu.topology} is not the shape "
                      "that its number stands for; GKE has it")
  options = [f"--project={project}", f"--zone={zone}", f"--node-id={name}", f"--accelerator-type={tpu.accelerator_type}",
             f"--runtime-version={tpu.runtime}", f"--metadata-from-file=startup-script={name}.sh"]
  options += ["--spot"] if spot else []
  options += [f"--service-account={service_account}"] if service_account else []
  return ["gcloud", "compute", "tpus", "queued-resources", "create", name, *options, "--quiet"]


def show(command: list[str], text: str) -> str:
  """A line of shell that writes the startup script, and the command after it: what is sent, to be read or run."""
  end = "STARTUP_SCRIPT"
  while end in text:
    end += "_"
  return f"cat > {command[5]}.sh <<'{end}'\n{text}{end}\n{shlex.join(command)}"


def submit(command: list[str], text: str) -> str:
  """Runs the command beside its startup script; what to say of it. Raises LaunchError if gcloud is not there or fails."""
  name = command[5]
  gcloud = shutil.which(command[0])
  if not gcloud:
    raise LaunchError("queued_resources: gcloud is not on PATH; it comes with the Google Cloud CLI")
  with tempfile.TemporaryDirectory() as folder:
    (pathlib.Path(folder) / f"{name}.sh").write_text(text, encoding="utf-8")
    done = subprocess.run([gcloud, *command[1:]], cwd=folder, env=os.environ, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, check=False)
  if done.returncode:
    said = " ".join((done.stderr or done.stdout).split()) or "nothing"
    raise LaunchError(f"queued_resources: gcloud refused {name} with status {done.returncode}: {said}")
  place = shlex.join(option for option in command if option.startswith(("--project=", "--zone=")))
  return (f"queued resource {name}: gcloud compute tpus queued-resources describe {name} {place}; "
          f"when done: gcloud compute tpus queued-resources delete {name} --force {place}")
