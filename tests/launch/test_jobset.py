"""What the cluster is sent, what a pod makes of it, and what is said when the cluster does not want it."""

import json
import os
import re
import subprocess

import commands
import jobset
from kubernetes import client
import pytest
import slices
import yaml

from tests.launch.hostile import HOSTILE
from tests.launch.hostile import WORKDIR

# The fields of JobSet v1alpha2 (api/jobset/v1alpha2/jobset_types.go) that we may use, where Kubernetes' client has no model.
FIELDS = {"": {"apiVersion", "kind", "metadata", "spec"}, "spec": {"network", "failurePolicy", "replicatedJobs"},
          "network": {"enableDNSHostnames", "subdomain", "publishNotReadyAddresses"},
          "failurePolicy": {"maxRestarts", "restartStrategy", "rules"},
          "rules": {"name", "action", "targetReplicatedJobs", "onJobFailureReasons", "onJobFailureMessagePatterns"}, "replicatedJobs": {"name", "replicas", "template"}}
FLAGS = ["--platform=gke", "--image=REGISTRY/pav_jax:1", "--config=configs/quickstart.py", "--workdir=gs://bucket/run"]


def _make(tpu="v5e:4x4", command="true", **changes):
  options = dict(image="REGISTRY/pav_jax:1", namespace="default", service_account="", spot=False, max_restarts=3)
  return jobset.make("pav-jax", command, slices.read(tpu), **options | changes)


def _lossless(data, model):
  """Whether Kubernetes' own model keeps all of it: an unknown or misspelt field, or a wrong type, would not come back."""
  api = client.ApiClient()
  return api.sanitize_for_serialization(api.deserialize(json.dumps(data), model, "application/json")) == data


def _valid(one):
  assert one["apiVersion"] == "jobset.x-k8s.io/v1alpha2" and one["kind"] == "JobSet"
  spec, [job] = one["spec"], one["spec"]["replicatedJobs"]
  for name, part in ("", one), ("spec", spec), ("network", spec["network"]), ("failurePolicy", spec["failurePolicy"]), (
      "replicatedJobs", job), *(("rules", rule) for rule in spec["failurePolicy"]["rules"]):
    assert part.keys() <= FIELDS[name], name
  assert _lossless(one["metadata"], "V1ObjectMeta") and _lossless(job["template"], "V1JobTemplateSpec")
  return job["template"]["spec"]


@pytest.mark.parametrize("tpu, hosts", [("v4:4x4x4", 16), ("v5e:4x4", 4), ("v5p:4x4x4", 16), ("v5e:2x4", 1), ("v5p:2x2x1", 1)])
@pytest.mark.parametrize("spot", [False, True])
def test_every_slice_is_a_valid_jobset(tpu, hosts, spot):
  one = _make(tpu, spot=spot, service_account="writer", max_restarts=7)
  job = _valid(one)
  assert (job["parallelism"], job["completions"]) == (hosts, hosts)
  assert one["spec"]["failurePolicy"]["maxRestarts"] == 7
  # Several pods must land on one slice; a pod by itself may have any machine.
  assert ("annotations" in one["metadata"]) == (hosts > 1)
  pod = job["template"]["spec"]
  assert pod["serviceAccountName"] == "writer"
  assert ("cloud.google.com/gke-spot" in pod["nodeSelector"], "tolerations" in pod) == (spot, spot)


@pytest.mark.parametrize("break_it", [
    lambda job: job.update(completion=4), lambda job: job["template"]["spec"].update(nodeSelectors={}),
    lambda job: job["template"]["spec"]["containers"][0].update(cmd=["x"]),
    lambda job: job["template"]["spec"]["containers"][0]["resources"].update(limit={})])
def test_the_validation_sees_a_misspelt_field(break_it):
  one = _make()
  break_it(one["spec"]["replicatedJobs"][0]["template"]["spec"])
  with pytest.raises((AssertionError, ValueError)):
    _valid(one)


GOLDEN = """\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: pav-jax
  namespace: default
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  network:
    enableDNSHostnames: true
  failurePolicy:
    maxRestarts: 3
    rules:
    - name: mistake
      action: FailJobSet
      onJobFailureReasons:
      - PodFailurePolicy
  replicatedJobs:
  - name: host
    replicas: 1
    template:
      spec:
        parallelism: {hosts}
        completions: {hosts}
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes:
              containerName: main
              operator: In
              values:
              - 2
        template:
          spec:
            restartPolicy: Never
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: {accelerator}
              cloud.google.com/gke-tpu-topology: {topology}
            containers:
            - name: main
              image: REGISTRY/pav_jax:1
              command:
              - bash
              - -c
              - 'set -m; {{ trap : TERM; export JAX_COMPILATION_CACHE_DIR=gs://bucket/run/compiled && python -m pav_jax.main --config=configs/quickstart.py --workdir=gs://bucket/run --hosts=auto; }} & set +m; trap ''kill -TERM -- -$$!'' TERM; wait $$!; status=$$?; while [ $$status -gt 128 ] && kill -0 $$! 2>/dev/null; do wait $$!; status=$$?; done; exit $$status'
              env:
              - name: PYTHONUNBUFFERED
                value: '1'
              resources:
                limits:
                  google.com/tpu: '4'
"""


@pytest.mark.parametrize("tpu, hosts, accelerator", [
    ("v4:4x4x4", 16, "tpu-v4-podslice"), ("v5e:4x4", 4, "tpu-v5-lite-podslice"), ("v5p:4x4x4", 16, "tpu-v5p-slice")])
def test_a_dry_run_word_by_word(launch, tpu, hosts, accelerator):
  done = launch(*FLAGS, f"--tpu={tpu}", "--dry_run")
  assert done.stderr == "" and done.returncode == 0
  assert done.stdout == GOLDEN.format(hosts=hosts, accelerator=accelerator, topology=tpu.split(":")[1])


def _as_a_pod(argument, variables):
  """Kubernetes' expansion of a container's command: $(NAME) where NAME is set, $$ is $, all else stands."""
  return re.sub(r"\$\$|\$\(([^)]*)\)", lambda m: "$" if m[0] == "$$" else variables.get(m[1], m[0]), argument)


def test_hostile_values_reach_main_unchanged(program, tmp_path):
  said = program("python", "assert os.environ['JAX_COMPILATION_CACHE_DIR'] == \"gs://bucket/it's $HOME/run/compiled\"")
  stages = [["--config=c", *HOSTILE, "--config.stage=sft"], ["--config=c", "--config.stage=values"]]
  job = _valid(_make(command=commands.on(4, stages, WORKDIR)))
  command = [_as_a_pod(x, {"HOME": "WRONG"}) for x in job["template"]["spec"]["containers"][0]["command"]]
  done = subprocess.run(command, cwd=tmp_path, env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": "WRONG"}, check=False,
                        capture_output=True, text=True)
  assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
  assert said() == [["-m", "pav_jax.main", *stage, "--hosts=auto"] for stage in stages]
  assert not (tmp_path / "pwned").exists()


def test_stages_stop_at_the_first_failure_with_its_status(program, tmp_path):
  said = program("python", "sys.exit(5 if 'b' in sys.argv else 0)")
  done = subprocess.run(["bash", "-c", commands.on(1, [["a"], ["b"], ["c"]], WORKDIR)],
                        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}, check=False)
  assert done.returncode == 5 and said() == [["-m", "pav_jax.main", "a"], ["-m", "pav_jax.main", "b"]]


@pytest.mark.parametrize("python, status", [("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137)])
def test_a_pod_ends_as_its_stage_does(program, tmp_path, python, status):
  said = program("python", python)
  [container] = _valid(_make(command=commands.on(4, [["a"], ["b"]], WORKDIR)))["template"]["spec"]["containers"]
  done = subprocess.run([_as_a_pod(x, {}) for x in container["command"]], check=False, capture_output=True,
                        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"})
  assert done.returncode == status and len(said()) == 1


def test_a_pod_that_is_taken_tells_its_stage_and_waits_for_it(program, tmp_path):
  """Kubernetes sends SIGTERM to the first process alone."""
  said = program("python", f"""
import signal
def save(*_):
  pathlib.Path({str(tmp_path / 'saved')!r}).touch(); sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path({str(tmp_path / 'ready')!r}).touch()
while True: signal.pause()""")
  [container] = _valid(_make(command=commands.on(4, [["a"], ["b"]], WORKDIR)))["template"]["spec"]["containers"]
  pod = subprocess.Popen([_as_a_pod(x, {}) for x in container["command"]], env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"})
  while not (tmp_path / "ready").exists():
    assert pod.poll() is None
  pod.terminate()
  assert pod.wait(timeout=60) == 143
  assert (tmp_path / "saved").exists() and said() == [["-m", "pav_jax.main", "a", "--hosts=auto"]]


@pytest.fixture
def cluster(server, tmp_path):
  """A cluster that lets in who has the token, as a real one would."""
  def configure(user={"token": "let-me-in"}, address=server.address):
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": user}],
        "clusters": [{"name": "k", "cluster": {"server": address}}], "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}]}))
  def status(code, message):
    return code, {"kind": "Status", "status": "Failure", "message": message, "code": code}
  def answer(path, body):
    if server.requests[-1][2].get("Authorization") != "Bearer let-me-in":
      return status(401, "Unauthorized")
    return server.verdict(body) or (201, body)
  server.answer, server.verdict, server.status, server.configure = answer, lambda body: None, status, configure
  configure()
  return server


def test_a_sweep_is_submitted_as_the_dry_run_says(launch, cluster):
  sweep = ["--tpu=v5e:4x4", "--namespace=research", "--sweep=config.seed=0,1", "--stages=rollouts,values", "--spot", "--title=rl"]
  done = launch(*FLAGS, *sweep)
  assert done.returncode == 0 and done.stderr == ""
  assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["submitted JobSet research/rl-1", "submitted JobSet research/rl-2"]
  assert [(method, path) for method, path, *_ in cluster.requests] == 2 * [
      ("POST", "/apis/jobset.x-k8s.io/v1alpha2/namespaces/research/jobsets")]
  sent = [body for *_, body in cluster.requests]
  assert sent == list(yaml.safe_load_all(launch(*FLAGS, *sweep, "--dry_run").stdout))
  for one in sent:
    _valid(one)
  assert "--config.seed=1 --workdir=gs://bucket/run/seed=1 --config.stage=values" in json.dumps(sent[1])


@pytest.mark.parametrize("code, message, line", [
    (403, 'jobsets is forbidden: User "me" cannot\ncreate', 'refused JobSet default/pav-jax: 403 jobsets is forbidden: User "me" cannot create'),
    (404, "the server could not find the requested resource", "(is JobSet installed in this cluster?)"),
    (409, 'jobsets "pav-jax" already exists', "409 jobsets \"pav-jax\" already exists (another --title"),
    (422, "spec.replicatedJobs: Invalid value", "422 spec.replicatedJobs: Invalid value")])
def test_a_refusal_is_one_line(refused, cluster, code, message, line):
  cluster.verdict = lambda body: cluster.status(code, message)
  said = refused(*FLAGS, "--tpu=v4:4x4x4")
  assert said.startswith(f"gke: {cluster.address} refused") and line in said and len(cluster.requests) == 1


def test_a_sweep_cut_short_says_what_was_submitted(refused, cluster):
  cluster.verdict = lambda body: cluster.status(409, "exists") if body["metadata"]["name"] == "pav-jax-3" else None
  said = refused(*FLAGS, "--tpu=v4:4x4x4", "--sweep=config.seed=0,1,2,3")
  assert said.endswith("; submitted before it: pav-jax-1, pav-jax-2") and len(cluster.requests) == 3


def test_no_credential(refused, cluster):
  cluster.configure({})
  assert "refused JobSet default/pav-jax: 401 Unauthorized (no credential: gcloud auth login" in refused(*FLAGS, "--tpu=v4:4x4x4")


def test_a_credential_plugin_that_is_not_there(refused, cluster):
  cluster.configure({"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "no-such-plugin"}})
  cluster.answer = lambda path, body: cluster.status(403, 'User "system:anonymous" cannot create')
  assert 'User "system:anonymous" cannot create (no credential: ' in refused(*FLAGS, "--tpu=v4:4x4x4")


def test_no_kube_config(refused):
  assert refused(*FLAGS, "--tpu=v4:4x4x4").startswith("gke: no cluster to talk to: ")


def test_nobody_answers(refused, cluster):
  cluster.configure(address="http://127.0.0.1:1")
  assert refused(*FLAGS, "--tpu=v4:4x4x4").startswith("gke: http://127.0.0.1:1 does not answer: ")
