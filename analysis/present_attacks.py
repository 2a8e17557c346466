"""Tables of the attacks and of requests one after another, as people read them."""

from __future__ import annotations

import pandas as pd

from analysis import attacks, fronts, robustness, sequences, words, worst_case
from analysis.cells import NOTHING, Table, number, with_interval
from analysis.folder import Study


def recovery(raw: pd.DataFrame) -> Table:
    """What came back under the attacks that everybody met, on what the attacker was not given."""
    mine = raw[raw["held_out"] != "seen"]
    shown = pd.DataFrame({
        "forget %": mine["ratio"], "method": mine["method"].map(words.method), "attack": mine["settings"],
        "on": mine["held_out"].replace(words.NAMES), "verdict": mine["verdict"],
        "above control": with_interval(mine, "above_control"), "gain (AG)": with_interval(mine, "gain"),
        "before": with_interval(mine, "before"), "after": with_interval(mine, "after"),
        "normalised recovery": with_interval(mine, "recovery"), "kept": mine["kept"].map(lambda v: number(v, 2)),
        "people": mine["people"],
    })  # fmt: skip
    return Table(
        "recovery", "Under attack: the fixed suite",
        "Accuracy on forget questions before the attack and after its last step, with 95 % intervals over people. "
        f"Normalised recovery is {NOTHING} where less than {robustness.SMALLEST_GAP} was forgotten. Kept: retain "
        "accuracy after the attack as a part of that before. A probe and membership inference ask after the attack "
        "in a way of their own: only the difference to the control counts there. What the attacker was given, which "
        "shows that the attack works, is in the CSV as well.", raw, shown,
    )  # fmt: skip


def worst_case_attack(study: Study) -> Table:
    """The worst attack on each winner, and what the attacker spent to find it."""
    raw = worst_case.table(study)
    keeps = attacks.keeps(study)
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(words.method), "verdict": raw["verdict"],
        "above control": with_interval(raw, "above_control"), "before": raw["before"].map(two),
        "after": raw["after"].map(two), "control after": raw["control_after"].map(two),
        "vanilla after": raw["vanilla_after"].map(two), "kept": raw["kept"].map(two),
        "worst attack": raw["settings"].replace("", "none left a model"),
        "mean of the worst 3": raw["worst_3"].map(two),
        "whatever it breaks": with_interval(raw, "any_above_control"), "kept then": raw["any_kept"].map(two),
        "gradient ascent": raw["weak_above_control"].map(two),
    })  # fmt: skip
    return Table(
        "worst_case", "Worst-case attack",
        "Of all attacks on a winner, of the suite and of the attacker's own search, the one that got most back above "
        "control. Selected by probability on the select half, reported as accuracy on the report half, on held-out "
        "people and facts together, with a 95 % interval over people that is paired with the control. It must keep at "
        f"least {keeps:g} of the retain accuracy; the mean of the worst 3 and 'whatever it breaks' are over all "
        "attacks. Gradient ascent: what the same attack gets back of that winner, which is known to hide.", raw, shown,
    )  # fmt: skip


def attack_counts(study: Study) -> Table:
    """What became of the attacks on each winner."""
    columns = ["ratio", "method", "proposals", "suite", *worst_case.COUNTS]
    raw = worst_case.table(study)[columns].sort_values(["ratio", "method"])
    names = {"ratio": "forget %", "proposals": "search trials", "suite": "suite besides", "cut_short": "cut short",
             "duplicates": "repeated", "broke": "broke the model"}  # fmt: skip
    return Table(
        "attack_counts", "What the attacker tried",
        "Complete, repeated, failed and unfinished attacks add up to the trials of the search and the suite besides. "
        "Of the complete ones, some were cut short by a divergence, and some left too little of the retain accuracy.",
        raw, raw.assign(method=raw["method"].map(words.method)).rename(columns=names),
    )  # fmt: skip


def attack_trials(study: Study) -> Table:
    """The attacks that failed or ended early, with the reason; all attacks in the CSV."""
    raw = worst_case.trials(study)
    mine = raw[(raw["reason"] != "") | (raw["state"] != "complete")]
    shown = pd.DataFrame({
        "forget %": mine["ratio"], "method": mine["method"].map(words.method), "attack": mine["settings"],
        "state": mine["state"], "reason": mine["reason"], "key": mine["attack"],
    })  # fmt: skip
    return Table("attack_trials", "Attacks without a whole result",
                 "Failed, unfinished, or cut short by a divergence, which leaves what came back until then. The CSV "
                 "holds every attack on every winner.", raw, shown)  # fmt: skip


def front(study: Study) -> Table:
    """Every trial on a front under the fixed suite."""
    raw = fronts.table(study)
    mine = raw.sort_values(["ratio", "method", "distance"])
    shown = pd.DataFrame({
        "forget %": mine["ratio"], "method": mine["method"].map(words.method),
        **{name: mine[f"report_{name}"].map(two) for name in fronts.VALUES}, "when selected": mine["distance"].map(two),
        "worst attack": mine["settings"].fillna("none left a model"),
        "above control": with_interval(mine, "above_control"),
        "before": mine["before"].map(two), "after": mine["after"].map(two), "kept": mine["kept"].map(two),
        "attacks": mine["complete"].astype(str) + " of " + mine["attacks"].astype(str), "verdict": mine["verdict"],
        "mark": mine["winner"].map({True: "winner", False: ""}), "key": mine["key"],
    })  # fmt: skip
    return Table(
        "front", "Whole fronts under the fixed suite",
        "Every trial on the front of its method, on the report half and with one seed; when selected: its distance on "
        "the other half. The worst attack of the suite is chosen by probability on the select half among those that "
        "leave a model, and told as accuracy on the report half. Attacks: how many of those it met can be compared "
        "with the control. The key names the trial's folder.", raw, shown,
    )  # fmt: skip


def in_turn(study: Study) -> Table:
    """Requests one after another: a line for each winner and state, a column for each group of people."""
    raw = sequences.table(study)
    lines = []
    keys = ["ratio", "method", "requests", "state", "done"]
    for (ratio, method, requests, state, done), group in raw.groupby(keys, sort=False):
        when = f"after {done} of {requests}" if state == "in turn" else state
        ended = group["diverged"].iloc[0] if state == "in turn" else ""
        line = {"forget %": ratio, "method": words.method(method), "requests": when}
        texts = with_interval(group, "mean", bare=True)
        several = raw["modality"].nunique() > 1
        for (name, modality), text in zip(zip(group["group"], group["modality"], strict=True), texts, strict=True):
            line[f"{name} {words.NAMES[modality]}" if several else name] = text
        lines.append({**line, "diverged": ended})
    shown = pd.DataFrame(lines).fillna(NOTHING)
    if len(shown):
        shown["diverged"] = shown.pop("diverged")
        if not (shown["diverged"] != "").any():
            shown = shown.drop(columns="diverged")
    what = "image and text" if raw["modality"].nunique() > 1 else "image"
    return Table(
        "sequence", "Requests one after another",
        f"Accuracy on {what} questions of the report half, with 95 % intervals over people: after each number of "
        "requests, with the same winner given everybody at once, and of the reference.", raw, shown,
    )  # fmt: skip


def two(value: float | None) -> str:
    """A number with two digits."""
    return NOTHING if value is None else number(value, 2)
