"""Programs that are run in forks of a template: what they are given, and that none outlives who asked for it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from study.engine.fork_server import template

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


def test_a_template_that_cannot_be_imported_starts_nothing(program: Path) -> None:
    with template("no_such_module", {}) as python:
        output, error = begin(python, program).communicate(timeout=60)
    assert output == ""
    assert "Error" in error
