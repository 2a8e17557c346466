"""Temporary folders of a Ray are private, and go with the study: at its end, or when the next one begins."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from study.engine.fork_server import OWNED
from study.engine.sessions import NEW, owned, sweep

HOLDING = """
import sys, time
from pathlib import Path
from study.engine.sessions import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def session(place: Path, name: str) -> Path:
    """As Ray makes it: open to everybody."""
    folder = place / f"session_{name}"
    (folder / "logs").mkdir(parents=True)
    folder.chmod(0o777)
    return folder


def aged(folder: Path) -> None:
    os.utime(folder / OWNED, (0, (folder / OWNED).stat().st_mtime - 2 * NEW))


def test_a_session_is_for_its_user_and_for_one_study(tmp_path: Path) -> None:
    mine = session(tmp_path, "mine")
    with owned(mine):
        assert mine.stat().st_mode & 0o777 == 0o700
        aged(mine)
        sweep(tmp_path, "session_*")
        assert mine.exists()
    assert not mine.exists()


def test_what_a_killed_study_left_goes_and_what_others_use_stays(tmp_path: Path) -> None:
    dead, foreign, new = (session(tmp_path, name) for name in ("dead", "foreign", "new"))
    for folder in (dead, new):
        (folder / OWNED).touch()
    command = [sys.executable, "-c", HOLDING, str(dead)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        aged(dead)
        sweep(tmp_path, "session_*")
        assert dead.exists()
        holder.send_signal(signal.SIGKILL)
    sweep(tmp_path, "session_*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["session_foreign", "session_new"]
    assert foreign.exists()
    assert new.exists()
    with (new / OWNED).open("r+") as lock:  # no lock of a sweep is left
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
