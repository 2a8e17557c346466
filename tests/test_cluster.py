"""cluster.yaml through Ray's own schema and config preparation, and what a study on it relies on."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config  # private, so the pin of Ray guards it

ROOT = Path(__file__).parent.parent


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
