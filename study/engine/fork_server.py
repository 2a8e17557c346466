"""Worker processes as forks of one that has imported everything already: started in about a second, not ten.

Ray starts a process for every worker of Ray Train and for every actor of Ray Tune, ends it with its actor, and has no
way to hand a warm one on: only tasks share processes. What costs is that each of them imports torch and transformers.
Ray does let a runtime environment name the executable of its workers (`py_executable`), and on a private Ray that is
this file: it asks the template, a process that has done the imports and nothing else, to fork, and lives as long as
the fork does. Ray itself each fork still imports, for about a second: its core crashes in a fork of a process that has
loaded it. So tasks, Ray Train and Ray Tune take their workers from one place, and to Ray they are processes like
any other: each belongs to one actor, holds its own GPU and may die by itself. Only its exit status is not told, as it
is nobody's child who asked; and where the template cannot fork, a worker starts as Ray would have started it.

On a cluster workers come and go with machines that have no template; there they are started as Ray does it.
"""

from __future__ import annotations

import fcntl
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_BEGUN = b"+"
PLACE, PREFIX = "/tmp", "workers-"
"""Where the private folders of templates are, and how their names begin: the path of a socket must be short."""
OWNED = "study.lock"
"""The file of a temporary folder that the process which made it holds locked as long as it lives."""


@contextmanager
def template(module: str, environment: Mapping[str, str]) -> Iterator[str]:
    """A template that has imported `module`, up for the duration of the block; how to start a Python that is its fork.

    `module` calls `serve` when it is run as a program. The block begins at once, while the template still imports.
    Only this user reaches it: its socket lies in a private folder.
    """
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=PLACE) as folder, open(f"{folder}/{OWNED}", "w") as owned:
        fcntl.flock(owned, fcntl.LOCK_EX)
        address = f"{folder}/socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(listener.fileno())],  # -P: not from the current folder
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,  # closed when this process ends, however it does
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C is for the driver, which ends its workers in order
            )
        with process:
            try:
                yield shlex.join([sys.executable, "-I", "-S", __file__, address])
            finally:
                process.kill()


def serve(listener: socket.socket) -> None:
    """Fork whenever somebody asks. Returns in each fork, when its program has ended, and never in the template.

    Only this thread is there to be forked, but for one of the memory allocator that pyarrow brings (jemalloc), which
    prepares itself for forks.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork here
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)  # the driver is gone
        connection, _ = listener.accept()
        try:
            forked = os.fork() == 0
        except OSError:  # no memory or no process is left: who asked sees the connection end, and starts alone
            forked = False
        if forked:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run(connection)
            return
        connection.close()


def _run(connection: socket.socket) -> None:
    """Become the program that was asked for: its streams, arguments, environment and folder."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as file:
        request = file.readline()
    if not request:
        os._exit(0)  # who asked was ended before it had said for what
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    arguments, environment, folder = json.loads(request)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.setpgrp()  # what is sent to the group of one worker must reach no other
    connection.sendall(_BEGUN)
    threading.Thread(target=_follow, args=(connection,), daemon=True).start()
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


def _follow(connection: socket.socket) -> None:
    """End with the process that asked: to whoever ends that one, it is the worker."""
    connection.recv(1)
    os._exit(1)


def _ask(address: str, arguments: list[str]) -> None:
    """What Ray starts: ask for a fork and live as long; become the program itself where there is no fork to be had."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            socket.send_fds(connection, [b"!"], [0, 1, 2])
            connection.sendall(json.dumps([arguments, dict(os.environ), os.getcwd()]).encode() + b"\n")
            begun = connection.recv(1) == _BEGUN
            if begun:
                connection.recv(1)  # nothing more is sent: it returns when the fork has ended
    except OSError:
        begun = False
    if not begun:
        os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    _ask(sys.argv[1], sys.argv[2:])
