"""What a study is, on disk: its settings, compared whenever it continues, and who is near the forget people."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import version

from study.core.errors import Refused
from study.core.files import read_json, write_json
from study.core.hashing import Json, canonical, content_key
from study.core.plugins import ROOT
from study.data.nearest import nearest
from study.stages.plan import PLACES, Plan

RUNTIME = ("study_dir", "storage", "workers", "gpus_per_trial", "workers_per_trial", "workers_per_model", "sharded",
           "threads", "address", "keep", "dry_run", "cost")  # fmt: skip
"""Settings that change no result but for rounding, and for the draws of adapter dropout where processes share a job."""
GROWING = (
    *("methods", "trials", "confirm_seeds", "defaults", "requests", "released", "metric_check", "metric_seeds"),
    *("attacks", "attack_grid", "searched_attacks", "attack_trials", "equivalence_margin"),
)
"""Settings that add work to a study without changing what it holds."""
PACKAGES = ("torch", "transformers", "peft", "ray", "optuna", "pandas", "numpy", "tokenizers", "pillow")


def _settings(plan: Plan) -> Json:
    settings = {k: v for k, v in canonical(plan.study).items() if k not in RUNTIME and k != "type"}
    attacker = plan.study.search_attack()
    return {
        **settings,
        "defaults": canonical(plan.study.preset_methods()),
        "attack_grid": canonical(plan.study.preset_attacks()),
        "model": plan.identity,
        "benchmark": {k: v for k, v in canonical(plan.source).items() if k not in PLACES},
        "fingerprint": plan.benchmark.fingerprint,
        "warm_start": f"{plan.warm.study} ({plan.warm.key})" if plan.warm else None,
        "robustness": {} if attacker is None else {"attack": plan.study.robustness, "key": content_key(attacker)},
    }


def check_settings(plan: Plan) -> None:
    """Refuse a folder that holds a study with other settings, field by field."""
    if not plan.folder.settings.exists():
        return
    before, now = read_json(plan.folder.settings)["settings"], _settings(plan)
    changed = [
        f"  {name}: {a} on disk, {b} requested"
        for name, a, b in _differences(before, now)
        if name.split(".")[0] not in GROWING
    ]
    changed += [f"  {name}: {a} on disk, {b} requested; a study can only grow" for name, a, b in _shrunk(before, now)]
    changed += [
        f"  {name}: another default on disk"
        for name in sorted({*before["defaults"]} & {*now["defaults"]})
        if before["defaults"][name] != now["defaults"][name]
    ]
    if changed:
        raise Refused(
            "\n".join(
                [
                    f"{plan.root} holds a study with other settings:",
                    *changed,
                    "use the settings on disk, or choose another --study-dir",
                ]
            )
        )


def _shrunk(before: Json, now: Json) -> Iterator[tuple[str, Json, Json]]:
    """The growing settings that ask for less than there is."""
    for name in ("trials", "confirm_seeds", "attack_trials", "metric_seeds"):
        if now[name] < before.get(name, 0):
            yield name, before[name], now[name]
    for name in ("methods", "attacks", "searched_attacks"):
        if not set(before.get(name, ())) <= set(now[name]):
            yield name, " ".join(before[name]), " ".join(now[name])


def _differences(a: Json, b: Json, name: str = "") -> Iterator[tuple[str, Json, Json]]:
    """The leaves at which two JSON values differ, as (dotted name, one, other)."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _differences(a.get(key), b.get(key), f"{name}.{key}".lstrip("."))
    elif a != b:
        yield name, a, b


def settle(plan: Plan) -> None:
    """Write down what this study is."""
    names = {"name": plan.study.study_dir.name, "settings": _settings(plan), "git": _revision()}
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    warm = {} if plan.warm is None else {"warm_start": plan.warm.record}
    write_json(plan.folder.settings, {**names, **warm, "versions": versions})
    if not plan.folder.near.exists():  # no setting that may change does change it
        write_json(plan.folder.near, {str(r): nearest(plan.benchmark.split(r)) for r in plan.study.forget_ratios})


def _revision() -> str:
    """The git revision of this project, with a plus sign if files differ from it; empty without git or checkout."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:  # no git on this machine
            return ""
        return done.stdout.strip()

    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
