"""cluster.yaml through Ray's own schema and config preparation, what a study on it relies on, and docs/cluster.md."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import botocore.exceptions
import grpc
import pytest
import ray
import yaml
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.providers import _NODE_PROVIDERS
from ray.autoscaler._private.util import prepare_config, validate_config  # private, so the pin of Ray guards it
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.core.generated import instance_manager_pb2
from ray.train.torch.config import _TorchBackend

from study.core.files import write_json
from study.engine import cluster, jobs, team, tune_runner
from study.engine.cluster import NotShared, asks_for_token, on_demand, started
from study.engine.jobs import quiet_worker
from study.engine.spot_instances import NO_SPOT, SpotFirst
from tests import ROOT


def written() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The config as `ray up` sees it: validated, with Ray's defaults filled in."""
    prepared: dict[str, Any] = prepare_config(written())
    validate_config(prepared)
    return prepared


def start(config: dict[str, Any], node: str) -> str:
    (command,) = (c for c in config[f"{node}_start_ray_commands"] if "ray start" in c)
    assert isinstance(command, str)
    return command


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ({"max_wrokers": 2}, "'max_wrokers' was unexpected"),
        ({"head_node_type": "nobody"}, "head_node_type"),
        ({"provider": {"type": "abacus"}}, "Unsupported node provider: abacus"),
    ],
)
def test_validation_can_fail(broken: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        validate_config(prepare_config(written() | broken))


def test_head_is_cpu_and_every_worker_is_a_spot_gpu_that_scales_from_zero(config: dict[str, Any]) -> None:
    types = dict(config["available_node_types"])
    assert "GPU" not in types.pop(config["head_node_type"])["resources"]
    assert types
    for worker in types.values():
        assert worker["resources"]["GPU"] >= 1
        assert worker["min_workers"] == 0 < worker["max_workers"] <= config["max_workers"]
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert 0 < config["idle_timeout_minutes"] <= 30


@pytest.mark.parametrize("node", ["head", "worker"])
def test_every_node_installs_the_lock_in_the_synced_repository(config: dict[str, Any], node: str) -> None:
    assert "cd ~/app && make install" in config[f"{node}_setup_commands"]


def test_every_file_that_install_and_study_read_is_synced(config: dict[str, Any]) -> None:
    synced = {remote: local for remote, local in config["file_mounts"].items() if remote.startswith("~/app/")}
    assert all(remote == f"~/app/{local}" and (ROOT / local).exists() for remote, local in synced.items())
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert {*packages, "LICENSE", "Makefile", "pyproject.toml", "requirements.lock"} <= set(synced.values())


@pytest.mark.parametrize("node", ["head", "worker"])
def test_every_ray_asks_for_the_token_that_is_synced(config: dict[str, Any], node: str) -> None:
    assert re.match(r"export ([^;]* )?RAY_AUTH_MODE=token[ ;]", start(config, node))
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_dashboard_listens_on_the_head_alone(config: dict[str, Any]) -> None:
    assert "--dashboard-host=127.0.0.1" in shlex.split(start(config, "head"))


def test_no_security_group_opens_more_than_ssh(config: dict[str, Any]) -> None:
    assert "security_group" not in config["provider"]  # Ray's own: SSH, and the machines among themselves
    for kind in config["available_node_types"].values():
        assert not {"SecurityGroupIds", "NetworkInterfaces"} & set(kind["node_config"])


def test_the_study_lies_on_a_file_system_that_every_node_mounts(config: dict[str, Any]) -> None:
    (mount,) = (c for c in config["initialization_commands"] if "mount -t nfs4" in c)
    assert f".efs.{config['provider']['region']}.amazonaws.com:/ /shared" in mount
    assert mount.startswith("mountpoint -q /shared ||")  # a node that `ray up` visits again is mounted already


def test_placeholders_are_explained_where_they_are_used() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    for placeholder in ("fs-REPLACE-ME", "ami-REPLACE-ME"):
        comments = [line for line in text.splitlines() if line.startswith("#") and placeholder in line]
        assert comments
        assert text.count(placeholder) == len(comments) + 1  # a user edits one place


# ---- spot, and on-demand where there is none -------------------------------------------------------------------
class FakeAWS:
    """What the node provider asks for machines: it has none of the spot market."""

    def __init__(self, refusal: str, on_demand: bool = True) -> None:
        self.refusal, self.on_demand = refusal, on_demand
        self.asked: list[dict[str, Any]] = []

    def create_instances(self, **conf: Any) -> list[Any]:
        self.asked.append(conf)
        if "InstanceMarketOptions" in conf or not self.on_demand:
            answer: Any = {"Error": {"Code": self.refusal, "Message": "sorry"}}
            raise botocore.exceptions.ClientError(answer, "RunInstances")
        return [
            type("Machine", (), {"id": "i-1", "instance_id": "i-1", "state": {"Name": "pending"}, "state_reason": None})
        ]


def launch(config: dict[str, Any], aws: FakeAWS) -> dict[str, Any]:
    """A worker as Ray's autoscaler starts it, with the subnets that `ray up` fills in."""
    untyped: Any = SpotFirst
    provider = untyped({**config["provider"], "cache_stopped_nodes": False}, "study")
    provider.ec2_fail_fast = aws
    worker = config["available_node_types"]["gpu_worker"]
    made: dict[str, Any] = provider.create_node_with_resources_and_labels(
        {**worker["node_config"], "SubnetIds": ["a", "b", "c"]}, {}, 1, worker["resources"], {}
    )
    return made


def test_ray_loads_the_provider_that_falls_back_and_fills_in_what_its_own_would_get(config: dict[str, Any]) -> None:
    loads: Any = _NODE_PROVIDERS["external"]
    assert loads(config["provider"]) is SpotFirst
    own: dict[str, Any] = prepare_config(written() | {"provider": {"type": "aws", "region": "us-west-2"}})
    assert {k: v for k, v in own.items() if k != "provider"} == {k: v for k, v in config.items() if k != "provider"}


@pytest.mark.parametrize("refusal", NO_SPOT)
def test_on_demand_is_asked_for_once_every_zone_has_refused_spot(config: dict[str, Any], refusal: str) -> None:
    aws = FakeAWS(refusal)
    assert list(launch(config, aws)) == ["i-1"]
    *spot, last = aws.asked
    assert {conf["SubnetId"] for conf in spot} == {"a", "b", "c"}
    assert all(conf["InstanceMarketOptions"] == {"MarketType": "spot"} for conf in spot)
    same = ("InstanceType", "ImageId", "BlockDeviceMappings", "TagSpecifications")
    assert {k: last[k] for k in same} == {k: spot[0][k] for k in same}


def test_what_on_demand_would_not_cure_is_not_tried_with_it(config: dict[str, Any]) -> None:
    aws = FakeAWS("UnauthorizedOperation")
    with pytest.raises(NodeLaunchException, match="UnauthorizedOperation"):
        launch(config, aws)
    assert all("InstanceMarketOptions" in conf for conf in aws.asked)


def test_no_machine_at_all_is_an_error_that_says_so(config: dict[str, Any]) -> None:
    with pytest.raises(NodeLaunchException, match="InsufficientInstanceCapacity"):
        launch(config, FakeAWS("InsufficientInstanceCapacity", on_demand=False))


def test_ray_does_not_fall_back_by_itself() -> None:
    """When this fails, Ray ranks refused node types lower: two node types with priorities can replace `SpotFirst`."""
    states: Any = instance_manager_pb2  # generated: mypy sees nothing in it
    monitor = CloudResourceMonitor()
    for status in (states.Instance.ALLOCATION_FAILED, states.Instance.ALLOCATION_TIMEOUT):
        monitor.notify([states.InstanceUpdateEvent(new_instance_status=status, instance_type=str(status))])
    assert list(monitor.get_recoverable_resource_availabilities()) == [str(states.Instance.ALLOCATION_TIMEOUT)]
    assert "create_node" in vars(AWSNodeProvider)  # what SpotFirst overrides


# ---- machines of one's own -------------------------------------------------------------------------------------
def test_machines_of_ones_own_get_what_those_of_aws_get(config: dict[str, Any]) -> None:
    """What else there is to it is tried in tests/cluster."""
    own: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / "cluster.local.yaml").read_text(encoding="utf-8")))
    validate_config(own)
    for same in ("cluster_name", "file_mounts", "rsync_exclude"):
        assert own[same] == config[same]
    for node in ("head", "worker"):
        assert "cd ~/app && make install" in own[f"{node}_setup_commands"]
        exported = dict(re.findall(r"(\w+)=(\S+)", start(own, node).partition(";")[0]))
        assert exported.items() >= dict(re.findall(r"(\w+)=(\S+)", start(config, node).partition(";")[0])).items()
    assert "--dashboard-host=127.0.0.1" in shlex.split(start(own, "head"))


def test_gloo_connects_workers_where_ray_does(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(_TorchBackend, "on_start", lambda *_: done.append("groups"))
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")  # restored afterwards
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    group: Any = type("Group", (), {"execute": lambda _, function: done.append(function)})()
    team.ProcessGroup().backend_cls().on_start(group, None)
    set_interface, groups = done
    assert groups == "groups"  # the last: they connect at once
    set_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == team.interface_of("127.0.0.1")


def test_the_interface_of_an_address_is_the_one_that_has_it() -> None:
    assert team.interface_of("127.0.0.1") in {"lo", "lo0"}
    assert team.interface_of("192.0.2.1") is None  # nobody's: for documentation alone


# ---- docs/cluster.md -------------------------------------------------------------------------------------------
def snippets() -> list[Any]:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


def test_the_settings_for_google_cloud_pass_the_same_validation() -> None:
    (changed,) = (block for block in snippets() if block.get("provider", {}).get("type") == "gcp")
    prepared = prepare_config(written() | changed)
    validate_config(prepared)
    head, worker = (prepared["available_node_types"][name] for name in ("head", "gpu_worker"))
    assert "guestAccelerators" not in head["node_config"]
    assert worker["resources"]["GPU"] == worker["node_config"]["guestAccelerators"][0]["acceleratorCount"]
    assert {"provisioningModel": "SPOT"}.items() <= worker["node_config"]["scheduling"][0].items()
    (mount,) = (c for c in prepared["initialization_commands"] if "mount -t nfs" in c)
    assert "/shared" in mount
    assert "aws" not in yaml.safe_dump(changed).lower()


def test_the_job_for_kubernetes_asks_for_a_token_and_the_locked_ray() -> None:
    (job,) = (block for block in snippets() if block.get("kind") == "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    assert spec["rayVersion"] == version("ray")
    assert f"ray=={version('ray')}" in (ROOT / "requirements.lock").read_text().splitlines()
    assert spec["authOptions"] == {"mode": "token"}
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in pods):
        (container,) = pod["containers"]
        assert {"name": "RAY_memory_monitor_refresh_ms", "value": "0"} in container["env"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/shared"}
        assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    assert "--study-dir /shared/" in job["spec"]["entrypoint"]


# ---- a machine that does not see the study ---------------------------------------------------------------------
def test_a_worker_that_does_not_see_the_study_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.sees, "__defaults__", (0.0,))
    monkeypatch.setenv("STUDY_FOLDER", str(tmp_path / "study"))
    with pytest.raises(NotShared, match=r"does not see .*study: every node must mount it at that path"):
        quiet_worker()
    done: list[str] = []
    failure = jobs.run_quietly(done.append, ("worked",))
    assert failure is not None
    assert (failure.kind, "every node must mount it" in failure.message) == ("input or output", True)
    write_json(tmp_path / "study" / "study.json", {})
    assert jobs.run_quietly(done.append, ("worked",)) is None
    assert done == ["worked"]


def test_a_search_on_such_machines_stops_and_marks_no_trial_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        """A search and a Tune of one trial that ended on a machine that does not see the study."""

        trials, labels, lookahead = 1, ("vkd",), 1
        config, error = (
            {"job": "job"},
            RuntimeError("trace\nstudy.engine.cluster.NotShared: node-7 does not see /shared"),
        )

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            pass

        def fit(self) -> list[Any]:
            return [self]

        def is_done(self, job: Any) -> bool:
            return False

        def record_failure(self, job: Any, reason: str) -> None:
            pytest.fail("a trial is not to blame")

    monkeypatch.setattr(tune_runner, "Tuner", Fake)
    search: Any = Fake()
    with pytest.raises(NotShared, match="node-7 does not see /shared"):
        tune_runner.tune_search(search, at_once=1, gpus=0, logs=Path("logs"), tell=print)


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    with (
        pytest.raises(ConnectionError, match=r"no Ray answers at 127\.0\.0\.1:1: start it with `ray up`"),
        started("127.0.0.1:1", 1, 1),
    ):
        pass
    assert asks_for_token("127.0.0.1:1") is None


def test_an_address_of_the_environment_is_named_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    message = r"at 127\.0\.0\.1:1 \(RAY_ADDRESS=127\.0\.0\.1:1 in the environment: unset it for a private Ray\)"
    with pytest.raises(ConnectionError, match=message), started("", 1, 1):
        pass
    assert "RAY_ADDRESS" not in cluster.unstarted("127.0.0.1:2", "given on the command line")


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        (OSError("AF_UNIX path length cannot exceed 107 bytes: /a/b"), "sockets is too long .*; set TMPDIR to a short"),
        (
            RuntimeError("The current node timed out during startup.\nTrace"),
            r"\(The current node timed out .*\); its logs",
        ),
        (SystemExit(1), r"Ray cannot start on this machine \(1\)"),
    ],
)
def test_whatever_ray_fails_with_is_one_line_with_the_remedy(
    failure: BaseException, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise failure

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConnectionError, match=remedy) as caught, started("", 1, 1):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_ray_that_was_imported_before_the_settings_were_there_still_starts_with_a_token() -> None:
    """As in a notebook, or with a plug-in that imports it: Ray reads its settings once, as it is imported."""
    script = (
        "import ray\nfrom study.engine.cluster import asks_for_token, started\nwith started('', 1, 1):\n"
        "    print(asks_for_token(ray.get_runtime_context().gcs_address))\n"
    )
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env=bare
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_the_probe_for_a_token_uses_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    true = grpc.insecure_channel

    def channel(gcs: str, options: Sequence[Any] = ()) -> Any:
        given.extend(options)
        return true(gcs, options)

    monkeypatch.setattr(grpc, "insecure_channel", channel)
    assert asks_for_token("127.0.0.1:1") is None
    assert ("grpc.enable_http_proxy", 0) in given


# ---- on demand ---------------------------------------------------------------------------------------------------
@pytest.fixture
def told() -> list[str]:
    """What happened to a Ray that is only planted."""
    return []


@contextmanager
def planted(told: list[str]) -> Iterator[None]:
    told.append("up")
    try:
        yield
    finally:
        told.append("down")


def test_ray_is_started_once_it_is_asked_for_and_once(told: list[str]) -> None:
    with on_demand(planted(told), lambda: told.append("checked")):
        assert told == []
        cluster.start()
        cluster.start()
        assert told == ["up", "checked"]
    assert told == ["up", "checked", "down"]
    cluster.start()
    assert told == ["up", "checked", "down"]


def test_ray_is_not_started_for_nothing(told: list[str]) -> None:
    with on_demand(planted(told), lambda: told.append("checked")):
        assert jobs.run_all([], lambda job, error: None, at_once=1, gpus=0) == {}
    assert told == []


def test_what_is_refused_of_a_ray_ends_it(told: list[str]) -> None:
    def refuse() -> None:
        raise NotShared("node-7")

    with pytest.raises(NotShared, match="node-7"), on_demand(planted(told), refuse):
        cluster.gpus()
    assert told == ["up", "down"]
