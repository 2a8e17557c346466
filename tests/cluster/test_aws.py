"""The machines of cluster.yaml and the copy of a study by the protocols of EC2 and S3, with faults.

boto3 and pyarrow are as they are; answers come from `moto_server`, on the PATH or installed by `make tools`. It starts
no machines: nothing here runs on one.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.node_launch_exception import NodeLaunchException

from study.core.mirror import Place, fetch, mirrored, place, push
from study.engine.spot_instances import SpotFirst
from tests import ROOT
from tests.core.test_mirror import STUDY, contents, kept, study_in
from tests.helpers.processes import free_ports

SERVER = shutil.which("moto_server")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # boto3's own
]

Machines = Callable[[], list[tuple[str, str | None]]]
Refusal = tuple[int, str]
"""Status and code of an answer that AWS did not give for want of something; status 0 hangs up without one."""


@dataclass
class Cloud:
    """AWS, where a test says what goes wrong."""

    refuses: Callable[[str, str, bytes], Refusal | None] = lambda method, path, body: None
    """The refusal of a request, by its method, path and body; None if it is served."""


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    """The port of a server that answers as AWS does."""
    if not SERVER:
        pytest.skip("no moto_server: `make tools` installs it")
    [port] = free_ports(1)
    process = subprocess.Popen(
        [SERVER, "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},  # those that Ray gives the head's role
        stderr=subprocess.DEVNULL,
    )
    try:
        while not answers(port):
            if process.poll() is not None:
                pytest.skip(f"{SERVER} does not start")
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def account(moto: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An account that boto3 and pyarrow take for one of AWS."""
    one = Cloud()
    server = ThreadingHTTPServer(("127.0.0.1", 0), between(one, moto))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path_factory.mktemp("home")),  # Ray keeps the key of the machines there
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield one
    server.shutdown()
    server.server_close()


@pytest.fixture
def cloud(account: Cloud) -> Iterator[Cloud]:
    """The account, with nothing refused and without machines."""
    account.refuses = Cloud.refuses
    yield account
    account.refuses = Cloud.refuses


def between(cloud: Cloud, moto: int) -> type[BaseHTTPRequestHandler]:
    """What hands a request on unless it is refused."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.body()
            refusal = cloud.refuses(self.command, self.path, body)
            if refusal is None:
                self.hand_on(body)
            elif refusal[0]:
                self.answer(refusal[0], {"Content-Type": "application/xml"}, said(refusal[1]))
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(pieces)

        def hand_on(self, body: bytes) -> None:
            connection = HTTPConnection("127.0.0.1", moto)
            kept = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "content-length")}
            connection.request(self.command, self.path, body, kept | {"Content-Length": str(len(body))})
            given = connection.getresponse()
            self.answer(given.status, dict(given.headers.items()), given.read())
            connection.close()

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            length = headers.get("Content-Length") if self.command == "HEAD" else str(len(body))
            for name, value in {**headers, "Content-Length": length or "0"}.items():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


def said(code: str) -> bytes:
    """An error in the words of EC2 and S3, which differ in where the code stands."""
    error = f"<Code>{code}</Code><Message>sorry</Message>"
    return f"<Response><Errors><Error>{error}</Error></Errors>{error}</Response>".encode()


# ---- machines ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def config(account: Cloud) -> dict[str, Any]:
    """cluster.yaml as `ray up` completes it in an empty account: key, role, security group and subnets are made."""
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8").replace("ami-REPLACE-ME", "ami-12345678")
    untyped: Any = SpotFirst
    made: dict[str, Any] = untyped.bootstrap_config(prepare_config(yaml.safe_load(text)))
    return made


def provider(config: dict[str, Any]) -> Any:
    untyped: Any = SpotFirst
    return untyped(config["provider"], config["cluster_name"])


def launch(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """A machine of a node type, as Ray starts it."""
    node = config["available_node_types"][kind]
    tags = {"ray-node-type": "head" if kind == "head" else "worker", "ray-user-node-type": kind}
    made: dict[str, Any] = provider(config).create_node_with_resources_and_labels(
        node["node_config"], tags, 1, node["resources"], {}
    )
    return made


@pytest.fixture
def machines(cloud: Cloud) -> Iterator[Machines]:
    """What runs in the account: instance types and, of those from the spot market, that they are."""
    running = boto3.resource("ec2").instances.filter(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
    yield lambda: sorted(((one.instance_type, one.instance_lifecycle) for one in running), key=str)
    running.terminate()


def no_spot(method: str, path: str, body: bytes) -> Refusal | None:
    """AWS without a spot machine in any zone."""
    asked = parse_qs(body.decode("latin-1"))
    spot = asked.get("Action") == ["RunInstances"] and "InstanceMarketOptions.MarketType" in asked
    return (500, "InsufficientInstanceCapacity") if spot else None


def test_what_ray_up_makes_in_an_account_opens_ssh_alone(config: dict[str, Any]) -> None:
    groups = {kind: node["node_config"]["SecurityGroupIds"] for kind, node in config["available_node_types"].items()}
    assert len({tuple(ids) for ids in groups.values()}) == 1
    rules = boto3.resource("ec2").SecurityGroup(groups["head"][0]).ip_permissions
    public = [(rule["FromPort"], rule["ToPort"]) for rule in rules if rule["IpRanges"]]
    assert public == [(22, 22)]
    assert Path(config["auth"]["ssh_private_key"]).expanduser().read_text().startswith("-----BEGIN")
    assert "IamInstanceProfile" in config["head_node"]  # what Ray gives the head alone


def test_workers_are_spot_machines_and_the_head_is_not(config: dict[str, Any], machines: Machines) -> None:
    launch(config, "head")
    launch(config, "gpu_worker")
    assert machines() == [("g6e.2xlarge", "spot"), ("m7i.xlarge", None)]


def test_without_spot_capacity_a_worker_is_on_demand_and_ends_as_any(
    cloud: Cloud, config: dict[str, Any], machines: Machines
) -> None:
    cloud.refuses = no_spot
    launch(config, "gpu_worker")
    assert machines() == [("g6e.2xlarge", None)]
    theirs = provider(config)
    theirs.terminate_nodes(theirs.non_terminated_nodes({"ray-node-type": "worker"}))
    assert machines() == []


def test_a_quota_that_is_used_up_is_an_error_and_leaves_no_machine(
    cloud: Cloud, config: dict[str, Any], machines: Machines
) -> None:
    def quota(method: str, path: str, body: bytes) -> Refusal | None:
        return (400, "VcpuLimitExceeded") if b"Action=RunInstances" in body else None

    cloud.refuses = quota
    with pytest.raises(NodeLaunchException, match="VcpuLimitExceeded"):
        launch(config, "gpu_worker")
    assert machines() == []


# ---- the copy ----------------------------------------------------------------------------------------------------
@pytest.fixture
def address(cloud: Cloud, tmp_path: Path) -> str:
    """Of a folder in a new bucket."""
    bucket = f"bucket-{uuid.uuid4()}"
    boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    return f"s3://{bucket}/runs/mine?region=us-west-2"


@pytest.fixture
def there(address: str) -> Place:
    return place(address)


def test_a_study_comes_back_from_s3_as_it_was(there: Place, tmp_path: Path) -> None:
    here, home = study_in(tmp_path / "here"), tmp_path / "home"
    assert push(here, there, {}) == len(STUDY) + 1
    assert push(here, there, {}) == 0
    assert fetch(there, home) == len(STUDY) + 1
    assert contents(home) == kept(here)
    assert push(home, there, {}) == 0


@pytest.mark.parametrize("refusal", [(503, "SlowDown"), (500, "InternalError"), (0, "")])
def test_s3_that_stumbles_at_every_file_loses_none(
    cloud: Cloud, there: Place, tmp_path: Path, refusal: Refusal
) -> None:
    stumbled = set[str]()

    def stumble(method: str, path: str, body: bytes) -> Refusal | None:
        file = path.partition("?")[0]
        name = file.partition("/runs/mine/")[2]
        if method != "PUT" or not name or name in stumbled:
            return None
        stumbled.add(name)
        return refusal

    cloud.refuses = stumble
    here, home = study_in(tmp_path / "here"), tmp_path / "home"
    push(here, there, {})
    assert stumbled >= {"study.json", *STUDY}
    fetch(there, home)
    assert contents(home) == kept(here)


@pytest.mark.parametrize("last", [0, 4, 8])
def test_s3_that_refuses_from_a_file_on_keeps_the_study_as_it_once_was(
    cloud: Cloud, there: Place, tmp_path: Path, last: int
) -> None:
    order = ["study.json", *STUDY]

    def refuse(method: str, path: str, body: bytes) -> Refusal | None:
        return (403, "AccessDenied") if method == "PUT" and path.partition("?")[0].endswith(order[last]) else None

    cloud.refuses = refuse
    here, home = study_in(tmp_path / "here"), tmp_path / "home"
    with pytest.raises(OSError, match=re.escape(order[last])):
        push(here, there, {})
    fetch(there, home)
    assert contents(home).keys() == set(order[:last])
    cloud.refuses = Cloud.refuses
    assert push(here, there, {}) == len(order) - last


def test_s3_that_is_away_for_a_while_ends_no_study(cloud: Cloud, address: str, tmp_path: Path) -> None:
    here, told = study_in(tmp_path / "here"), list[str]()
    cloud.refuses = lambda method, path, body: (403, "AccessDenied") if method == "PUT" else None
    with mirrored(here, address, told.append, period=0.02):
        while not told:
            time.sleep(0.01)
        cloud.refuses = Cloud.refuses
    assert "cannot be written at the moment" in told[0]
    assert fetch(place(address), tmp_path / "home") == len(STUDY) + 1
