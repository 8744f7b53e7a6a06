"""What gcloud is asked, what a host does with its startup script, and what is said when gcloud does not want it."""

import os
import shutil
import subprocess

import commands
from errors import LaunchError
import pytest
import queued_resources
import slices

from tests.launch.hostile import HOSTILE
from tests.launch.hostile import WORKDIR

FLAGS = ["--platform=queued_resources", "--project=mine", "--zone=us-central2-b", "--config=configs/quickstart.py",
         "--workdir=gs://bucket/run"]
PACKAGE = "--package=git+https://HOST/pav_jax@1"

GOLDEN = """\
cat > pav-jax.sh <<'STARTUP_SCRIPT'
#!/bin/bash
# Runs on every host of the slice, at every boot.
set -uo pipefail
export HOME=/root PYTHONUNBUFFERED=1 PATH=/opt/pav_jax/environment/bin:$PATH
install() {
  [ -e /opt/pav_jax/installed ] || {
    mkdir -p /opt/pav_jax && cd /opt/pav_jax &&
    python3 -m pip install --quiet uv &&
    # The machine's own Python is too old.
    python3 -m uv venv --quiet --clear --python 3.12 environment &&
    gcloud storage cp gs://bucket/pav_jax-1.whl . &&
    python3 -m uv pip install --quiet --python environment/bin/python ./pav_jax-1.whl 'jax[tpu]' &&
    touch installed
  }
}
run() {
  # The package has its configs with it, and finds them by name.
  cd /opt/pav_jax &&
  export JAX_COMPILATION_CACHE_DIR=gs://bucket/run/compiled && python -m pav_jax.main --config=configs/quickstart.py --workdir=gs://bucket/run --hosts=auto
}
for attempt in $(seq 0 3); do
  status=1
  if install; then
    run
    status=$?
  fi
  echo "pav_jax: attempt $attempt ended with status $status"
  case $status in 0|2) break ;; esac
done
exit $status
STARTUP_SCRIPT
gcloud compute tpus queued-resources create pav-jax --project=mine --zone=us-central2-b --node-id=pav-jax \
--accelerator-type=ACCELERATOR --runtime-version=RUNTIME --metadata-from-file=startup-script=pav-jax.sh --spot --quiet
"""


@pytest.mark.parametrize("tpu, accelerator, runtime", [
    ("v4:4x4x4", "v4-128", "tpu-ubuntu2204-base"), ("v5e:4x4", "v5litepod-16", "v2-alpha-tpuv5-lite"),
    ("v5p:4x4x4", "v5p-128", "v2-alpha-tpuv5")])
def test_a_dry_run_word_by_word(launch, tpu, accelerator, runtime):
  done = launch(*FLAGS, f"--tpu={tpu}", "--package=gs://bucket/pav_jax-1.whl", "--spot", "--dry_run")
  assert done.stderr == "" and done.returncode == 0
  assert done.stdout == GOLDEN.replace("ACCELERATOR", accelerator).replace("RUNTIME", runtime)


def test_a_dry_run_is_what_is_sent(launch, program, tmp_path):
  """Run by bash, its output hands gcloud the same arguments and the same script as the launcher itself does."""
  said = program("gcloud", "pathlib.Path(os.environ['KEEP']).write_text(pathlib.Path('pav-jax.sh').read_text())")
  flags = [*FLAGS, PACKAGE, "--tpu=v5e:2x2", "--stages=sft,values", *HOSTILE]
  environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "KEEP": str(tmp_path / "sent")}
  done = launch(*flags, **environment)
  assert done.returncode == 0 and done.stderr == "" and done.stdout.startswith("submitted queued resource pav-jax: gcloud ")
  sent = (tmp_path / "sent").read_text()
  shown = launch(*flags, "--dry_run").stdout
  subprocess.run(["bash", "-c", shown], cwd=tmp_path, env=os.environ | environment, check=True)
  assert said() == 2 * [["compute", "tpus", "queued-resources", "create", "pav-jax", "--project=mine", "--zone=us-central2-b",
                         "--node-id=pav-jax", "--accelerator-type=v5litepod-4", "--runtime-version=v2-alpha-tpuv5-lite",
                         "--metadata-from-file=startup-script=pav-jax.sh", "--quiet"]]
  assert (tmp_path / "sent").read_text() == sent and "--hosts" not in sent


@pytest.fixture
def host(program, tmp_path):
  """host(*stages, fail=(...), **script): boots one: (status, what main, uv and gcloud were given); fail: main's statuses."""
  root = tmp_path / "root of it"
  main = program("python", f"""
if sys.argv[1] == '-c':
  print({str(tmp_path)!r}); sys.exit()
fails = pathlib.Path({str(tmp_path / 'fails')!r})
status, *rest = fails.read_text().split() or ['0']
fails.write_text(' '.join(rest)); sys.exit(int(status))""")
  uv = program("python3", f"""
if sys.argv[2:4] == ['uv', 'venv']:
  os.makedirs('environment/bin', exist_ok=True)
if sys.argv[2:4] == ['uv', 'pip'] and os.path.exists({str(tmp_path / 'offline')!r}):
  os.remove({str(tmp_path / 'offline')!r}); sys.exit(2)""")
  gcloud = program("gcloud")

  def boot(*stages, fail=(), packages=("pav_jax",), max_restarts=2):
    (tmp_path / "fails").write_text(" ".join(map(str, fail)))
    script = queued_resources.script(commands.on(4, stages, WORKDIR), list(packages), max_restarts, root=str(root))
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
                          capture_output=True, text=True, check=False)
    runs = [x for x in main() if x[0] != "-c"]
    return done.returncode, runs, uv(), gcloud()
  return boot


def test_a_host_installs_once_and_runs_every_stage_with_hostile_values(host, tmp_path):
  stages = [["--config=c", *HOSTILE, "--config.stage=sft"], ["--config=c", "--config.stage=values"]]
  runs = [["-m", "pav_jax.main", *stage, "--hosts=auto"] for stage in stages]
  packages = ["gs://bucket/a b.whl", "git+https://HOST/x@1"]
  installs = [["-m", "pip", "install", "--quiet", "uv"],
              ["-m", "uv", "venv", "--quiet", "--clear", "--python", "3.12", "environment"],
              ["-m", "uv", "pip", "install", "--quiet", "--python", "environment/bin/python", "./a b.whl",
               "git+https://HOST/x@1", "jax[tpu]"]]
  assert host(*stages, packages=packages) == (0, runs, installs, [["storage", "cp", "gs://bucket/a b.whl", "."]])
  # The next boot.
  assert host(*stages, packages=packages)[:3] == (0, 2 * runs, installs)
  assert not list(tmp_path.rglob("pwned"))


def test_a_failure_starts_the_chain_anew_and_a_mistake_does_not(host):
  a, b = (["-m", "pav_jax.main", stage, "--hosts=auto"] for stage in "ab")
  assert host(["a"], ["b"], fail=(0, 1))[:2] == (0, [a, b, a, b])


@pytest.mark.parametrize("fail, status, runs", [((1, 1, 1, 1), 1, 3), ((139,), 0, 2), ((2,), 2, 1), ((1, 2), 2, 2)])
def test_how_often(host, fail, status, runs):
  ended, said, *_ = host(["a"], fail=fail)
  assert (ended, len(said)) == (status, runs)


def test_an_installation_that_fails_is_tried_again(host, tmp_path):
  (tmp_path / "offline").touch()
  status, runs, installs, _ = host(["a"])
  assert (status, len(runs), len(installs)) == (0, 1, 6)


def test_a_shape_that_a_number_of_chips_does_not_name():
  with pytest.raises(LaunchError, match="4x4x12 is not the shape that its number stands for; GKE has it"):
    queued_resources.arguments("x", slices.read("v5p:4x4x12"), project="p", zone="z", service_account="", spot=False)


def test_gcloud_fails_in_a_sweep(refused, program, tmp_path):
  program("gcloud", "if sys.argv[5] == 'pav-jax-2':\n  print('ERROR: (gcloud)\\n  PERMISSION_DENIED', file=sys.stderr); sys.exit(1)")
  said = refused(*FLAGS, PACKAGE, "--tpu=v4:4x4x4", "--sweep=config.seed=0,1,2", PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
  assert said == ("queued_resources: gcloud refused pav-jax-2 with status 1: ERROR: (gcloud) PERMISSION_DENIED; "
                  "submitted before it: pav-jax-1")


def test_no_gcloud(refused, tmp_path):
  said = refused(*FLAGS, PACKAGE, "--tpu=v4:4x4x4", PATH=str(tmp_path))
  assert said == "queued_resources: gcloud is not on PATH; it comes with the Google Cloud CLI"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs the Google Cloud CLI")
def test_the_real_gcloud_understands_it(launch, server, tmp_path):
  server.answer = lambda path, body: (200, {"name": "projects/mine/locations/us-central2-b/operations/o", "done": True})
  done = launch(*FLAGS, PACKAGE, "--tpu=v4:4x4x4", "--spot", "--service_account=me@mine", *HOSTILE,
                CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU=f"{server.address}/", CLOUDSDK_AUTH_DISABLE_CREDENTIALS="1",
                CLOUDSDK_CONFIG=str(tmp_path / "gcloud"), CLOUDSDK_CORE_DISABLE_USAGE_REPORTING="1")
  assert done.returncode == 0, done
  method, path, _, body = server.requests[0]
  assert (method, path.partition("?")[0]) == ("POST", "/v2/projects/mine/locations/us-central2-b/queuedResources")
  [spec] = body["tpu"]["nodeSpec"]
  node = spec["node"]
  assert body["spot"] == {} and spec["nodeId"] == "pav-jax"
  assert (node["acceleratorType"], node["runtimeVersion"]) == ("v4-128", "tpu-ubuntu2204-base")
  assert node["serviceAccount"] == {"email": "me@mine"}
  line = commands.on(16, [["--config=configs/quickstart.py", *HOSTILE, "--workdir=gs://bucket/run"]], "gs://bucket/run")
  assert node["metadata"] == {"startup-script": queued_resources.script(line, [PACKAGE.removeprefix("--package=")], 3)}
