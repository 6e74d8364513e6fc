"""kubectl and helm with this machine as the cluster: what is applied is checked and its entry point run here; a pod is a shell here."""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.docs.programs.asked import Arguments, refuse, remember, remembered

POD = "pod/tokenmill-head"
OPERATOR = "kuberay/kuberay-operator"  # makes a cluster know RayJob and RayCluster
CLUSTER = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs", "autoscalerOptions", "enableInTreeAutoscaling"}
JOB = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec", "submissionMode"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
CONTAINER = {"name", "image", "env", "envFrom", "resources", "volumeMounts", "command", "args"}


def kubectl(arguments: Sequence[str]) -> int:
    command = _command(arguments)
    return {"create": _create, "apply": _apply, "logs": _logs, "get": _get, "exec": _execute}[command](list(arguments[1:]))


def _command(arguments: Sequence[str]) -> str:
    if not arguments or arguments[0] not in ("create", "apply", "logs", "get", "exec"):
        refuse(f"unknown command {' '.join(arguments[:1])!r} for kubectl")
    return arguments[0]


def _create(arguments: list[str]) -> int:
    parser = Arguments("kubectl create")
    parser.add_argument("kind", choices=["secret"])
    parser.add_argument("type", choices=["generic"])
    parser.add_argument("name")
    parser.add_argument("--from-literal", action="append", default=[])
    asked = parser.parse_args(arguments)
    if any(not re.fullmatch(r"[\w.-]+=.+", literal) for literal in asked.from_literal):
        refuse("--from-literal takes key=value")
    secrets = remembered().get("secrets", [])
    if asked.name in secrets:
        refuse(f'secrets "{asked.name}" already exists')
    remember(secrets=[*secrets, asked.name])
    print(f"secret/{asked.name} created")
    return 0


def _apply(arguments: list[str]) -> int:
    parser = Arguments("kubectl apply")
    parser.add_argument("-f", "--filename", type=Path, required=True)
    path = parser.parse_args(arguments).filename
    if not path.is_file():
        refuse(f'the path "{path}" does not exist')
    applied = yaml.safe_load(path.read_text())
    check(applied)
    name = applied["metadata"]["name"]
    print(f"{applied['kind'].lower()}.ray.io/{name} created")
    if applied["kind"] == "RayJob":
        done = _in_a_pod(shlex.split(applied["spec"]["entrypoint"]))
        remember(jobs=remembered().get("jobs", {}) | {name: done.stdout})
        if done.returncode:
            print(done.stdout)
        return done.returncode
    return 0


def check(applied: Any) -> None:
    """Refuse what KubeRay or Kubernetes would, as far as it can be told from names and numbers."""
    if not isinstance(applied, dict) or applied.get("apiVersion") != "ray.io/v1" or applied.get("kind") not in ("RayJob", "RayCluster"):
        refuse("apiVersion and kind are ray.io/v1 and RayJob or RayCluster here")
    if remembered().get("charts", {}).get("kuberay-operator") != OPERATOR:
        refuse(f'no matches for kind "{applied["kind"]}" in version "ray.io/v1": the operator is not installed')
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", str(applied.get("metadata", {}).get("name"))):
        refuse("metadata.name is not a name")
    spec = applied["spec"]
    if applied["kind"] == "RayJob":
        _only(spec, JOB, "spec", needed=("entrypoint", "rayClusterSpec"))
        spec = spec["rayClusterSpec"]
    _only(spec, CLUSTER, "rayClusterSpec", needed=("headGroupSpec",))
    for group in [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]:
        _only(group, GROUP, "a group", needed=("template", "rayStartParams"))
        if not group.get("minReplicas", 0) <= group.get("replicas", 0) <= group.get("maxReplicas", group.get("replicas", 0)):
            refuse("replicas are not between minReplicas and maxReplicas")
        if any(not isinstance(value, str) for value in group["rayStartParams"].values()):
            refuse("the values of rayStartParams are strings")
        _check_pod(group["template"]["spec"])


def _check_pod(spec: dict[str, Any]) -> None:
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        _only(container, CONTAINER, "a container", needed=("name", "image"))
        if remembered().get("images", {}).get(container["image"]) != "pushed":
            refuse(f"ErrImagePull: {container['image']}")
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                refuse(f"volumeMounts: {mount['name']} is no volume")
        for origin in container.get("envFrom", []):
            if origin["secretRef"]["name"] not in remembered().get("secrets", []):
                refuse(f"CreateContainerConfigError: secret {origin['secretRef']['name']} not found")
        if any(not isinstance(variable["value"], str) for variable in container.get("env", [])):
            refuse("the values of env are strings")


def _only(found: dict[str, Any], known: set[str], where: str, needed: Sequence[str]) -> None:
    if unknown := set(found) - known:
        refuse(f"strict decoding error: unknown field in {where}: {', '.join(sorted(unknown))}")
    if missing := [name for name in needed if name not in found]:
        refuse(f"{where} needs {', '.join(missing)}")


def _logs(arguments: list[str]) -> int:
    parser = Arguments("kubectl logs")
    parser.add_argument("-f", "--follow", action="store_true")
    parser.add_argument("-l", "--selector", required=True)
    label, _, name = parser.parse_args(arguments).selector.partition("=")
    if label != "job-name" or name not in remembered().get("jobs", {}):
        refuse("No resources found in default namespace.")
    print(remembered()["jobs"][name])
    return 0


def _get(arguments: list[str]) -> int:
    parser = Arguments("kubectl get")
    parser.add_argument("kind", choices=["pod", "pods"])
    parser.add_argument("-l", "--selector", required=True, choices=["ray.io/node-type=head"])
    parser.add_argument("-o", "--output", required=True, choices=["name"])
    parser.parse_args(arguments)
    print(POD)
    return 0


def _execute(arguments: list[str]) -> int:
    parser = Arguments("kubectl exec")
    parser.add_argument("-i", "--stdin", action="store_true")
    parser.add_argument("-t", "--tty", action="store_true")
    parser.add_argument("pod", choices=[POD])
    before, _, command = " ".join(map(shlex.quote, arguments)).partition(" -- ")
    parser.parse_args(shlex.split(before))
    if not command:
        refuse("you must specify at least one command for the container")
    done = _in_a_pod(shlex.split(command))
    print(done.stdout)
    return done.returncode


def _in_a_pod(command: list[str]) -> subprocess.CompletedProcess[str]:
    """In an image, the programs of .venv are on the PATH."""
    environment = os.environ | {"PATH": f"{Path('.venv/bin').absolute()}:{os.environ['PATH']}"}
    return subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def helm(arguments: Sequence[str]) -> int:
    parser = Arguments("helm")
    commands = parser.add_subparsers(dest="command", required=True)
    repository = commands.add_parser("repo")
    repository.add_argument("action", choices=["add"])
    repository.add_argument("name")
    repository.add_argument("url")
    install = commands.add_parser("install")
    install.add_argument("name")
    install.add_argument("chart")
    install.add_argument("--version", required=True)
    asked = parser.parse_args(arguments)
    if asked.command == "repo":
        if not asked.url.startswith("https://"):
            refuse(f"{asked.url} is not a chart repository")
        remember(repositories=[*remembered().get("repositories", []), asked.name])
    else:
        if asked.chart.split("/")[0] not in remembered().get("repositories", []):
            refuse(f"repo {asked.chart.split('/')[0]} not found")
        if not re.fullmatch(r"\d+\.\d+\.\d+", asked.version):
            refuse(f"no chart version found for {asked.chart}-{asked.version}")
        remember(charts=remembered().get("charts", {}) | {asked.name: asked.chart})
    return 0
