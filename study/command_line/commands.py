"""The commands of `mus`: the module behind each, which is imported only when it is called, and what it does."""

from __future__ import annotations

COMMANDS = {
    "run": ("study.run", "run a study, or continue it"),
    "list": ("study.command_line.listing", "the methods, attacks, presets, benchmarks and so on that there are"),
    "status": ("study.status", "how far a study is, also while it runs"),
    "report": ("analysis.__main__", "rebuild the report of a study, or sum up several"),
    "verify": ("study.verify", "check every file of a study against its digest"),
    "export": ("study.export", "a winner as an ordinary Hugging Face folder"),
    "evidence": ("study.evidence", "what a study shows of a deletion, for those who must prove it"),
    "purge": ("study.purge", "remove what still holds the forgotten, and keep the evidence"),
    "doctor": ("study.doctor", "examine a base model before it is studied"),
    "check-data": ("study.benchmarks.__main__", "check a dataset before it is studied"),
    "export-optuna": ("study.export_optuna", "all trials as an Optuna storage"),
    "general-utility": ("study.general_utility", "what a model can still do, through lmms-eval"),
    "completion": ("study.command_line.completion", "a script that completes all of this in bash or zsh"),
    "version": ("", "the version of this project and of what it computes with"),
}
"""By name; each module has a `main` that takes the arguments and returns the exit status."""
