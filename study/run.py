"""Run a study: `python study/run.py [PRESET] [settings]`, or `mus run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
if sys.path[0] == str(HERE):  # `python study/run.py` would otherwise find study's modules under their bare names
    sys.path[0] = str(HERE.parent)

import tyro  # noqa: E402

from study.command_line import config, options  # noqa: E402
from study.core import signals  # noqa: E402
from study.core.console import console  # noqa: E402
from study.core.errors import DiskFull, Failed, Refused  # noqa: E402
from study.presets import PRESETS  # noqa: E402
from study.settings import Study  # noqa: E402

PROG = "mus run"
DEFAULT = "tiny"
"""The preset of a command line that names none."""
ABOUT = (
    "Teach a model about people, unlearn some of them with several methods under a hyper-parameter search, confirm and "
    "attack the winners, and write a report. The same command again continues the study."
)
EXAMPLES = (
    ("smoke", "from learning to report in a minute or two; the numbers mean nothing"),
    ("--dry-run", "what the default study will do, and how long it takes"),
    ("--methods vkd npo --trials 16 --study-dir runs/mine", "two methods, a longer search, a folder of its own"),
    ("llava_1_5_7b --model /models/llava-1.5-7b-hf --benchmark mllmu:/data/MLLMU-Bench", "a 7B model on a GPU"),
    ("--config my_study.py", "settings from a file; --print-config writes one"),
)


def parse(arguments: Sequence[str]) -> Study:
    """The study that the command line asks for: a preset (default `tiny`) or a file, with some settings overridden."""
    file, rest = config.taken(arguments)
    preset, rest = options.split(rest, PRESETS)
    if file and preset:
        raise ValueError(
            f"preset {preset} with --config {file}: the file defines the whole study; leave one of them out"
        )
    about, default = (f"The settings of {file}.", config.read(file)) if file else PRESETS[preset or DEFAULT]
    if {"-h", "--help"} & {*rest}:
        print(options.page(default, PROG, f"{about} {ABOUT}", PRESETS, EXAMPLES))
        raise SystemExit(0)
    return tyro.cli(Study, prog=PROG, default=default, args=rest, add_help=False, config=(tyro.conf.AvoidSubcommands,))


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit status: 0 done, 1 something failed, 2 refused before any work, 130 interrupted, 143 by
    SIGTERM."""
    with signals.like_ctrl_c():
        return _run(sys.argv[1:] if arguments is None else arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        shown = [text for text in arguments if text != "--print-config"]
        study = parse(shown).resolved()
        if len(shown) < len(arguments):
            print(config.source(study), end="")
            return 0
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
