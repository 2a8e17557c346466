"""The command line: `python study/run.py [PRESET] [settings]`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if sys.path[0] == str(HERE):  # `python study/run.py` would otherwise find study's modules under their bare names
    sys.path[0] = str(HERE.parent)

import tyro  # noqa: E402

from study.core import signals  # noqa: E402
from study.core.console import console  # noqa: E402
from study.core.errors import DiskFull, Failed, Refused  # noqa: E402
from study.core.plugins import check  # noqa: E402
from study.presets import PRESETS  # noqa: E402
from study.settings import Study  # noqa: E402


def parse(arguments: list[str]) -> Study:
    """The study that the command line asks for: a preset (default `tiny`) with some settings overridden."""
    preset, rest = (
        ("tiny", arguments) if not arguments or arguments[0].startswith("-") else (arguments[0], arguments[1:])
    )
    check("presets", preset, tuple(PRESETS))
    about, default = PRESETS[preset]
    presets = "\n".join(f"  {name}: {what}" for name, (what, _) in PRESETS.items())
    return tyro.cli(
        Study,
        prog=f"python study/run.py {preset}",
        description=f"{about}\n\nTeach a model about people, unlearn some of them with several methods under a "
        f"hyper-parameter search, confirm and attack the winners, and write a report.\n\nPresets:\n{presets}",
        default=default,
        args=rest,
        config=(tyro.conf.AvoidSubcommands,),
    )


def main() -> int:
    """Run; returns the exit status: 0 done, 1 something failed, 2 refused before any work, 130 interrupted, 143 by
    SIGTERM."""
    with signals.like_ctrl_c():
        return _run(sys.argv[1:])


def _run(arguments: list[str]) -> int:
    try:
        study = parse(arguments).resolved()
        from study.stages.pipeline import run  # what models need takes seconds to import: help and typos do without

        return run(study)
    except (Failed, DiskFull) as failure:
        console.print(f"failed: {failure}", style="bold red", markup=False)
        return 1
    except (Refused, ValueError, OSError) as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print(signals.STOPPED)
        return signals.exit_status()


if __name__ == "__main__":
    sys.exit(main())
