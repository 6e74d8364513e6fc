"""A Ray cluster of several nodes on this machine, whose nodes and head can die and come back."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

# On one machine a driver has to be told which of its raylets is "its" node; elsewhere there is only one. It has little patience.
DRIVER = """
import os
from ray._private import services
find = services.get_node_to_connect_for_driver
services.get_node_to_connect_for_driver = lambda gcs, **known: find(gcs, **{**known, "node_name": os.environ["AT"]})
from pipeline import workers
workers.LOOK_SECONDS, workers.SILENT_SECONDS = 1, float(os.environ.get("PATIENCE", 4))
from pipeline.cli import main
main()
"""

# The head takes a node for dead after a second, not ten.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 250, "health_check_failure_threshold": 4}


class Nodes:
    """The head computes nothing; the others have names and a core each."""

    def __init__(self, *names: str) -> None:
        self.cluster = Cluster()
        self.nodes: dict[str, Any] = {}
        self.start_head()
        for name in names:
            self.start(name)

    @property
    def address(self) -> str:
        return self.cluster.address

    def start_head(self, port: int | None = None) -> None:
        self.start("head", cores=0, include_dashboard=False, _system_config=QUICK, gcs_server_port=port)

    def start(self, name: str, cores: int = 1, environment: Mapping[str, str] | None = None, **arguments: Any) -> None:
        few = {"num_cpus": cores, "object_store_memory": 80 << 20, "env_vars": dict(environment or {})}
        self.nodes[name] = self.cluster.add_node(node_name=name, **few, **arguments)

    def kill(self, name: str) -> None:
        """SIGKILL everything that runs on the node: raylet, agents and workers; on the head its directory of the cluster too."""
        node = self.nodes.pop(name)
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in [*raylet.children(recursive=True), raylet]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.cluster.remove_node(node, allow_graceful=False)

    def shutdown(self) -> None:
        for name in sorted(self.nodes, key=lambda name: name == "head"):
            self.kill(name)


@contextmanager
def running(*names: str) -> Iterator[Nodes]:
    nodes = Nodes(*names)
    try:
        yield nodes
    finally:
        nodes.shutdown()


def drive(nodes: Nodes, at: str, *arguments: object, log: Path, cwd: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """`tokenmill` with these arguments as a driver on the node `at`, with its output in `log`."""
    given = os.environ | {"RAY_ADDRESS": nodes.address, "AT": at} | environment
    with open(log, "wb") as output:
        return subprocess.Popen([sys.executable, "-c", DRIVER, *map(str, arguments)], env=given, cwd=cwd, stdout=output, stderr=output)
