"""`mus COMMAND`, or `python -m study COMMAND`: everything that a user does, from one command.

Each command hands its arguments over to the module that does it, which is imported only then.
"""

from __future__ import annotations

import platform
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from study.command_line.commands import COMMANDS
from study.core import plugins

PLUGINS = "--plugins"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked; returns its exit status: 2 for a command that there is not."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == [PLUGINS]:
            plugins.use(given[1:2])
            given = given[2:]
        name, rest = (given or ["--help"])[0], given[1:]
        if name in ("-h", "--help", "help"):
            print(_help())
            return 0 if given else 2
        name = "version" if name == "--version" else name
        plugins.check("commands", name, tuple(COMMANDS))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if name == "version":
        print(_versions())
        return 0
    status: int = import_module(COMMANDS[name][0]).main(rest)
    return status


def _help() -> str:
    lines = [f"usage: mus [{PLUGINS} PACKAGE] COMMAND ...", "", "Commands; each answers --help:"]
    lines += [f"  {name:<16} {what}" for name, (_, what) in COMMANDS.items()]
    about = (
        f"{PLUGINS} names a package with methods, attacks, models, benchmarks, spaces or sections of your own, or its "
        "folder; several are separated by commas. Packages that are installed with an entry point need no naming."
    )
    return "\n".join([*lines, "", *textwrap.wrap(about, 100)])


def _versions() -> str:
    from study.core.provenance import PACKAGES, revision

    lines = [f"mllm-unlearning-study {version('mllm-unlearning-study')}"]
    lines += [f"revision {revision()}"] * bool(revision())
    lines += [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
