"""What a study is, on disk: its settings, compared whenever it continues, and who is near the forget people."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from study.core.errors import Refused
from study.core.files import read_json, write_json
from study.core.hashing import Json, canonical, content_key
from study.core.layout import StudyFolder
from study.core.plugins import search_space
from study.core.provenance import revision, versions
from study.core.records import read_study
from study.core.specs import name_in
from study.core.terms import BASE_MODEL
from study.data.nearest import nearest
from study.stages.plan import PLACES, Plan

RUNTIME = ("study_dir", "storage", "plugins", "methods_from", "workers", "gpus_per_trial", "workers_per_trial",
           "workers_per_model", "sharded", "threads", "address", "keep", "trackers",
           "strict_data", "strict_code", "price_per_gpu_hour", "dry_run", "cost")  # fmt: skip
"""Settings that change no result but for rounding, and for the draws of adapter dropout where processes share a job;
what `methods_from` took is among the methods and their defaults."""
GROWING = (
    *("race", "early_stopping", "budget_pflop", "budget_hours"),
    *("methods", "trials", "confirm_seeds", "defaults", "requests", "released", "metric_check", "metric_seeds"),
    *("attacks", "attack_grid", "searched_attacks", "attack_trials", "equivalence_margin", "gate"),
)
"""Settings that add work to a study, or let it go on, without changing what it holds."""


def _settings(plan: Plan) -> Json:
    settings = {k: v for k, v in canonical(plan.study).items() if k not in RUNTIME and k != "type"}
    attacker = plan.study.search_attack()
    return {
        **settings,
        "defaults": canonical(plan.study.preset_methods()),
        "attack_grid": canonical(plan.study.preset_attacks()),
        "model": plan.identity,
        "benchmark": {k: v for k, v in canonical(plan.source).items() if k not in PLACES},
        **_given(plan),
        "measure": None if plan.study.measure == "all" else plan.study.measure,
        "scored_error": plan.study.scored_error or None,
        "fingerprint": plan.benchmark.fingerprint,
        "warm_start": f"{plan.warm.study} ({plan.warm.key})" if plan.warm else None,
        "robustness": {} if attacker is None else {"attack": plan.study.robustness, "key": content_key(attacker)},
    }


def _given(plan: Plan) -> Json:
    """The models that are brought, by their content, wherever they lie; nothing of a study that teaches its own."""
    if plan.brought is None:
        return {"vanilla": None, "reference": None}
    vanilla, *references = plan.given
    base = not plan.brought.references
    return {"vanilla": vanilla.base, "reference": BASE_MODEL if base else [model.base for model in references]}


def check_settings(plan: Plan) -> None:
    """Refuse a folder that holds a study with other settings, field by field, once anything was searched with them."""
    if not plan.folder.settings.exists():
        return
    found, now = read_study(plan.folder), _settings(plan)
    if not has_begun(plan.folder):
        return
    before = found["settings"]
    fixed = [leaf for leaf in _differences(before, now) if _top(leaf) not in GROWING]
    changed = [f"  {name}: {a} on disk, {b} requested" for name, a, b in fixed]
    changed += [f"  {name}: {a} on disk, {b} requested; a study can only grow" for name, a, b in _shrunk(before, now)]
    changed += [
        f"  {name}: another default on disk"
        for name in sorted({*before["defaults"]} & {*now["defaults"]})
        if before["defaults"][name] != now["defaults"][name]
    ]
    if changed:
        remedy = "use the settings on disk, or choose another --study-dir"
        if len(changed) == len(fixed) and all(_top(leaf) in before.keys() ^ now.keys() for leaf in fixed):
            here = revision() or "unknown"
            remedy = (
                f"it was begun with a version of this project that has other settings (revision {found['git']}; here "
                f"{here}): continue it with that version, or choose another --study-dir"
            )
        raise Refused("\n".join([f"{plan.root} holds a study with other settings:", *changed, remedy]))


def is_unchanged(plan: Plan) -> bool:
    """Whether the folder holds a study with just these settings, which asks for nothing more."""
    return plan.folder.settings.exists() and content_key(read_study(plan.folder)["settings"]) == content_key(
        _settings(plan)
    )


def has_begun(folder: StudyFolder) -> bool:
    """Whether a search has proposed anything: until then all that settings decide is which models are taught.

    A trial of a method says so too, where proposals were lost by some accident.
    """
    if folder.proposals():
        return True
    return any(read_json(path).get("method", "none") != "none" for path in folder.trial_records())


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


def _top(leaf: tuple[str, Json, Json]) -> str:
    """The setting that a leaf is of."""
    return leaf[0].partition(".")[0]


def settle(plan: Plan) -> list[str]:
    """Write down what this study is.

    Before its search has begun, what was kept under other settings goes; returns the keys of these models.
    """
    gone = [] if has_begun(plan.folder) else _forget_other(plan)
    names = {"name": plan.study.study_dir.name, "settings": _settings(plan), "git": revision()}
    warm = {} if plan.warm is None else {"warm_start": plan.warm.record}
    more = {"methods_from": plan.methods_from.record} if plan.methods_from else {}
    if plan.benchmark.skipped:
        more["skipped"] = {"rows": plan.benchmark.rows, "said": plan.benchmark.left_out, "all": plan.benchmark.skipped}
    write_json(plan.folder.settings, {**names, **warm, **more, "spaces": _spaces(plan), "versions": versions()})
    if not plan.folder.near.exists():  # no setting that may still change does change it
        write_json(plan.folder.near, {str(r): nearest(plan.benchmark.split(r)) for r in plan.study.forget_ratios})
    return gone


def _forget_other(plan: Plan) -> list[str]:
    """Remove the models, and what was scored of them, that this plan does not have; the keys of the models."""
    folder = plan.folder
    if not folder.settings.exists():
        return []
    kept = [t for ratio in plan.study.forget_ratios for t in (*plan.baselines(ratio), *plan.pool(ratio))]
    learned = [path for path in folder.learned_folders() if path.name not in {t.start.key for t in kept}]
    scored = [path for path in folder.trial_folders() if path.name not in {t.key for t in kept}]
    before, now = read_study(folder)["settings"], _settings(plan)
    if before.get("model") != now["model"]:
        folder.base_model.unlink(missing_ok=True)
    if any(before.get(name) != now[name] for name in ("fingerprint", "forget_ratios")):
        folder.near.unlink(missing_ok=True)
    for path in (*scored, *learned):
        shutil.rmtree(path)
    return [path.name for path in learned]


def _spaces(plan: Plan) -> Json:
    """What the search may propose of each method, so that a report knows the ends of every range."""
    from search_spaces import as_json, ranges  # with Optuna, which help and refused settings do without

    return {t: as_json(ranges(search_space(name_in(t)).space, default)) for t, default in plan.defaults.items()}
