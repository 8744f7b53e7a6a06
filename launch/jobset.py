"""GKE: a work unit as one JobSet, one pod on every host of a slice.

JobSet (jobset.x-k8s.io/v1alpha2, to be installed in the cluster) makes the
headless service and the pods' subdomain; GKE's webhook then tells each pod who
its neighbours are, which is what --hosts=auto asks for. When a pod fails or its
spot machine is taken, the whole set starts anew, and every stage goes on from
what it had finished.
"""

import json
import logging

import kubernetes
import urllib3
from errors import LaunchError
from slices import Slice

GROUP, VERSION, PLURAL = "jobset.x-k8s.io", "v1alpha2", "jobsets"
_SECONDS = (10, 60)  # to connect, to answer
# A container's first process, here bash, is sent SIGTERM alone, and would keep it to itself.
_PASS_ON = ("set -m; {{ trap : TERM; {command}; }} & set +m; trap 'kill -TERM -- -$!' TERM; wait $!; status=$?; "
            "while [ $status -gt 128 ] && kill -0 $! 2>/dev/null; do wait $!; status=$?; done; exit $status")


def make(name: str, command: str, tpu: Slice, *, image: str, namespace: str, service_account: str, spot: bool,
         max_restarts: int) -> dict:
  """The JobSet that runs `command`, a line of shell, on every host of a slice.

  image: has `bash`, and `python` with pav_jax and jax[tpu]. service_account:
  Kubernetes' name of who may write to the workdir; '' for the namespace's
  default. max_restarts: how often the set starts anew.
  """
  selector = {"cloud.google.com/gke-tpu-accelerator": tpu.accelerator, "cloud.google.com/gke-tpu-topology": tpu.topology}
  # In a container's command Kubernetes reads $(NAME) as a variable, and $$ as $.
  container = {"name": "main", "image": image, "command": ["bash", "-c", _PASS_ON.format(command=command).replace("$", "$$")],
               "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
               "resources": {"limits": {"google.com/tpu": str(tpu.chips_per_host)}}}
  pod = {"restartPolicy": "Never", "nodeSelector": selector, "containers": [container]}
  if spot:
    selector["cloud.google.com/gke-spot"] = "true"
    pod["tolerations"] = [{"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true",
                           "effect": "NoSchedule"}]
  if service_account:
    pod["serviceAccountName"] = service_account
  # One pod an index, and no second try for a pod by itself: the others would wait for a process that is gone.
  mistake = {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [2]}}
  job = {"parallelism": tpu.hosts, "completions": tpu.hosts, "completionMode": "Indexed", "backoffLimit": 0,
         "podFailurePolicy": {"rules": [mistake]}, "template": {"spec": pod}}
  metadata = {"name": name, "namespace": namespace}
  if tpu.hosts > 1:
    # A node pool is a slice: all pods go to one of them, and it takes no other set's.
    metadata["annotations"] = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
  policy = {"maxRestarts": max_restarts,
            "rules": [{"name": "mistake", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]}
  return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "JobSet", "metadata": metadata,
          "spec": {"network": {"enableDNSHostnames": True}, "failurePolicy": policy,
                   "replicatedJobs": [{"name": "host", "replicas": 1, "template": {"spec": job}}]}}


def connect() -> kubernetes.client.CustomObjectsApi:
  """The cluster of the current context of $KUBECONFIG or ~/.kube/config. Raises LaunchError where there is none."""
  configuration = kubernetes.client.Configuration()
  configuration.retries = False  # an answer or its absence at once; the user may ask again
  try:
    # A credential plugin that fails is logged, and the server then says who is missing.
    logging.disable(logging.ERROR)
    kubernetes.config.load_kube_config(client_configuration=configuration)
  except (kubernetes.config.ConfigException, OSError, ValueError) as error:
    raise LaunchError(f"gke: no cluster to talk to: {' '.join(str(error).split())} "
                      "(gcloud container clusters get-credentials ... writes a kube config)") from error
  finally:
    logging.disable(logging.NOTSET)
  return kubernetes.client.CustomObjectsApi(kubernetes.client.ApiClient(configuration))


def submit(api: kubernetes.client.CustomObjectsApi, jobset: dict) -> str:
  """Creates a JobSet; what to say of it. Raises LaunchError if the cluster refuses it or does not answer."""
  name, namespace = jobset["metadata"]["name"], jobset["metadata"]["namespace"]
  server = api.api_client.configuration.host
  try:
    api.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, jobset, _request_timeout=_SECONDS)
  except kubernetes.client.ApiException as error:
    reason = _reason(error)
    hint = _HINTS.get(401 if "system:anonymous" in reason else error.status, "")
    raise LaunchError(f"gke: {server} refused JobSet {namespace}/{name}: {error.status} {reason}{hint}") from error
  except urllib3.exceptions.HTTPError as error:
    raise LaunchError(f"gke: {server} does not answer: {' '.join(str(error).split())}") from error
  return f"JobSet {namespace}/{name}: kubectl -n {namespace} logs -f -l jobset.sigs.k8s.io/jobset-name={name} --prefix"


_HINTS = {401: " (no credential: gcloud auth login, and gke-gcloud-auth-plugin on PATH)",
          404: " (is JobSet installed in this cluster?)",
          409: " (another --title, or kubectl delete jobset first: the run goes on from its workdir)"}


def _reason(error: kubernetes.client.ApiException) -> str:
  """The API server's own sentence, on one line."""
  try:
    text = json.loads(error.body)["message"]
  except (KeyError, TypeError, ValueError):
    text = f"{error.reason} {error.body or ''}"
  return " ".join(text.split())
