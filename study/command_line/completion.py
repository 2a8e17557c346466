"""Completion of `mus` in bash and zsh: `eval "$(mus completion)"`, best in ~/.bashrc or ~/.zshrc.

The script holds all names, so that completing starts no Python: print it again after an update or a new plug-in.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from study.command_line.commands import COMMANDS
from study.core.plugins import known

SCRIPT = """\
# completion of mus, printed by `mus completion`
if [ -n "${ZSH_VERSION-}" ]; then autoload -U +X bashcompinit && bashcompinit; fi
_mus() {
    local word=${COMP_WORDS[COMP_CWORD]} at=$COMP_CWORD flag= words= rest="PRESETS OPTIONS"
    while [ "$at" -gt 1 ]; do
        at=$((at - 1))
        case ${COMP_WORDS[at]} in --*) flag=${COMP_WORDS[at]}; break;; esac
    done
    case "$COMP_CWORD ${COMP_WORDS[1]} $flag" in
        "1 "*) words="COMMANDS";;
        *" list "*) words="KINDS";;
        *" run "--methods) words="METHODS $rest";;
        *" run "--attacks|*" run "--searched-attacks|*" run "--robustness) words="ATTACKS $rest";;
        *" run "--benchmark) words="BENCHMARKS $rest";;
        *" run "--model|*" run "--base-model) words="MODELS $rest";;
        *" run "*) words=$rest;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o bashdefault -o default -F _mus mus
"""


def script() -> str:
    """The script for this version and the plug-ins that are there."""
    from study.command_line.listing import KINDS
    from study.command_line.options import FIRST, options
    from study.presets import PRESETS
    from study.settings import REFERENCES, Study

    flags = [flag for option in options(Study()) for flag in option.flags]
    flags += [part.strip().partition(" ")[0] for flag, _ in FIRST for part in flag.split(",")]
    lists: dict[str, Iterable[str]] = {
        "COMMANDS": COMMANDS,
        "KINDS": KINDS,
        "METHODS": ("all", *(name for name in known("methods") if name not in REFERENCES)),
        "ATTACKS": known("attacks"),
        "BENCHMARKS": known("benchmarks"),
        "MODELS": known("base_models"),
        "PRESETS": PRESETS,
        "OPTIONS": flags,
    }
    text = SCRIPT
    for name, words in lists.items():
        text = text.replace(name, " ".join(words))
    return text


def main(arguments: list[str] | None = None) -> int:
    """Print the script; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="mus completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    print(script(), end="")
    return 0
