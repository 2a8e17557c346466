"""Hosts made of Linux namespaces: each has an address, a disk, processes and shared memory of its own.

A host sees the files of this machine and writes to a disk of its own, which is kept in memory. An ordinary user has a
home there, and SSH answers. One folder is shared by all hosts, as by NFS. Their network leads nowhere else. They live
in the namespaces that `ALONE` makes for the process that makes them, and end with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import ROOT

ALONE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""How to start a process that makes hosts: whatever it has started is killed when it ends."""
USER = "ada"
"""Who has a home on every host."""
BRIDGE = "hosts"
"""The switch that all hosts are plugged into."""
TOOLS = ("unshare", "nsenter", "ip", "ssh", "rsync", "/usr/sbin/sshd")
BOOT = Path(__file__).with_name("boot.sh")


def missing() -> str:
    """Why no hosts can be made on this machine; empty if they can."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return "namespaces need root on Linux"
    if lacking := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"not installed: {', '.join(lacking)} (Debian: util-linux iproute2 openssh-server rsync)"
    if not (ROOT / ".venv" / "bin" / "ray").exists():
        return "the hosts use the .venv of this folder: make install"
    made = subprocess.run([*ALONE, "ip", "link", "add", BRIDGE, "type", "bridge"], capture_output=True, text=True)
    return f"no namespaces can be made here: {made.stderr.strip()}" if made.returncode else ""


def played(module: str, folder: Path) -> None:
    """Run a module that makes hosts in an empty folder, in namespaces of its own; skips where none can be made."""
    if reason := missing():
        pytest.skip(reason)
    done = subprocess.run([*ALONE, sys.executable, "-m", module, folder], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Host:
    """A host, which can be lost and come back."""

    name: str
    address: str
    folder: Path
    """Where `Network` has the disks, the keys and what all hosts share."""
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.on()

    def on(self) -> None:
        """Start it; returns when SSH answers."""
        places = (self.folder / "disks" / self.name, self.folder / "shared", self.folder / "keys")
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child",
             "bash", BOOT, self.name, self.address, *places, USER, ROOT, *_entered()],
        )  # fmt: skip
        self._until(lambda: bool(self._children()))
        cable = f"to-{self.name}"
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", self._children()[0])
        _ip("link", "set", cable, "master", BRIDGE, "up")
        self._until(lambda: _answers(self.address))

    def off(self) -> None:
        """Pull the plug: all its processes die at once, and its address no longer answers."""
        self.process.kill()
        self.process.wait()

    def command(self, line: str, user: str = USER) -> list[str]:
        """What runs a line of shell there, as its user at the keyboard would."""
        namespaces = ("--net", "--mount", "--pid", "--uts", "--root", "--wd=/")
        login = ("su", "--login", user, "--command", line)
        return ["nsenter", f"--target={self._children()[0]}", *namespaces, *login]

    def says(self, line: str) -> str:
        """What a line of shell prints there, whether it succeeds or not."""
        done = subprocess.run(self.command(line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout

    def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            assert self.process.poll() is None, f"{self.name} did not come up"
            time.sleep(0.1)

    def _children(self) -> list[str]:
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()


def network(folder: Path) -> None:
    """Make what hosts have in common, once and in namespaces of one's own."""
    for name in ("disks", "shared", "keys"):
        (folder / name).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "disks"], check=True)
    for name in ("id_ed25519", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "keys" / name], check=True)
    shutil.copy(folder / "keys" / "id_ed25519.pub", folder / "keys" / "authorized_keys")
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("link", "set", BRIDGE, "up")
    _ip("address", "add", "10.0.0.254/24", "dev", BRIDGE)


def _entered() -> list[Path]:
    """The folders that the user must be able to enter to run what is installed here."""
    ends = (ROOT, (ROOT / ".venv").resolve(), Path(sys.base_prefix))
    return list(dict.fromkeys(folder for end in ends for folder in (end, *end.parents[:-1])))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _answers(address: str) -> bool:
    try:
        socket.create_connection((address, 22), timeout=1).close()
    except OSError:
        return False
    return True
