"""Programs that are run in forks of a template: what they are given, and that none outlives who asked for it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.engine import fork_server
from study.engine.fork_server import OWNED, template

FORK_SERVER = fork_server.__file__
TEMPLATE = """
import socket, sys
from study.engine.fork_server import serve
if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
"""
PROGRAM = """
import os, sys
print(os.getpid(), os.getppid(), os.getcwd(), *sys.argv[1:])
print(os.environ["SAID"], file=sys.stderr)
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program to be run; the template lies beside it."""
    (tmp_path / "toy_template.py").write_text(TEMPLATE)
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path / "program.py"


def begin(python: str, program: Path, said: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*shlex.split(python), str(program), "two words"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=program.parent,
        env={**os.environ, "SAID": said},
    )


def test_each_program_is_a_fork_with_its_own_streams_arguments_folder_and_environment(program: Path) -> None:
    with template("toy_template", {}) as python:
        first, second = (begin(python, program, said) for said in ("one", "other"))
        outputs = [asked.communicate(timeout=60) for asked in (first, second)]
    (pid, parent, folder, *words), (another, same, *_) = (out.split() for out, _ in outputs)
    assert pid != another
    assert parent == same  # both come off the template
    assert (folder, words) == (str(program.parent), ["two", "words"])
    assert [error.strip() for _, error in outputs] == ["one", "other"]
    assert [asked.returncode for asked in (first, second)] == [0, 0]


@pytest.mark.parametrize("ended", ["who asked", "the fork"])
def test_a_fork_and_who_asked_for_it_end_together(program: Path, ended: str) -> None:
    with template("toy_template", {}) as python, begin(python, program) as asked:
        assert asked.stdout is not None
        fork = int(asked.stdout.readline().split()[0])
        os.kill(asked.pid if ended == "who asked" else fork, signal.SIGKILL)
        asked.wait(timeout=60)
        assert asked.stdout.read() == ""  # ends when the last process that could write has ended


def test_a_program_is_run_without_a_template_that_is_gone(program: Path) -> None:
    with template("no_such_module", {}) as python:
        output, error = begin(python, program, "alone").communicate(timeout=60)
    _, parent, *rest = output.split()
    assert int(parent) == os.getpid()  # who asked has become the program
    assert rest == [str(program.parent), "two", "words"]
    assert error.strip().splitlines()[-1] == "alone"


def test_the_template_is_not_taken_from_the_current_folder(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = program.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "toy_template.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(elsewhere)
    with template("toy_template", {}) as python:
        output, _ = begin(python, program).communicate(timeout=60)
    assert int(output.split()[1]) != os.getpid()


def test_who_asks_for_nothing_leaves_the_template_alone(program: Path) -> None:
    with template("toy_template", {}) as python:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(shlex.split(python)[-1])
        output, error = begin(python, program, "fine").communicate(timeout=60)
    assert int(output.split()[1]) != os.getpid()
    assert error.strip() == "fine"


@pytest.mark.slow
def test_a_template_ends_with_its_driver(program: Path) -> None:
    """However that ends."""
    code = "from study.engine.fork_server import template\nwith template('toy_template', {}) as python:\n"
    command = [sys.executable, "-c", f"{code}    print(python, flush=True)\n    input()\n"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        address = shlex.split(driver.stdout.readline())[-1]
        with begin(shlex.join([sys.executable, "-I", "-S", FORK_SERVER, address]), program) as asked:
            assert asked.stdout is not None
            _, parent, *_ = asked.stdout.readline().split()
            driver.kill()
            asked.communicate(timeout=60)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{parent}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{parent}").exists()
        Path(address).unlink()
        (Path(address).parent / OWNED).unlink()
        Path(address).parent.rmdir()


PRIVATE = """
import os
from study.engine.cluster import started
with started("", 1, 1, preloaded="toy_template"):
    import ray
    print(open(f"/proc/{ray.get(ray.remote(lambda: os.getppid()).remote())}/cmdline").read())
"""


@pytest.mark.slow
def test_workers_of_a_private_ray_are_forks(program: Path) -> None:
    """In a process of its own: Ray reads its settings when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", PRIVATE], capture_output=True, text=True, cwd=program.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "toy_template" in done.stdout
