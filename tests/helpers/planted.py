"""A study folder with known answers, written by hand: what each model scores is planted, nothing is learned."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.core.files import read_json, write_json
from study.core.hashing import content_key
from study.core.layout import StudyFolder
from study.core.rows import ROW_COLUMNS, write_rows
from study.core.terms import MODALITIES, ROLES, TASKS, Role
from tests.helpers.rows import row

STEPS = (0, 5, 10, 20, 40)
ATTACK = "a1b2c3"
PLAIN: tuple[Role, ...] = tuple(role for role in ROLES if role != "spared")
"""The roles of a study that forgets whole people."""
MEMBER = tuple(name for name in ROW_COLUMNS if name.startswith("member_"))
UNTOLD = tuple(n for n, kind in ROW_COLUMNS.items() if kind == "float64" and n not in ("score", "probability"))
OVERLAP = ("rouge_1", "rouge_2", "rouge_l", "rouge_l_recall", "bleu")
PEOPLE = {role: [f"{role}-{n}" for n in range(size)] for role, size in (("forget", 12), ("retain", 12), ("real", 6))}
"""Of the forget people the attacker is given facts about six, and is not given the other six at all."""
TO_GO = (("forget", "image_text"), ("test", "image_text"))
"""What must go under the goal `visual`, about which the validation half has questions of all tasks."""


@dataclass(frozen=True)
class Model:
    """What a planted model scores: `keep` unless said otherwise; `back` on held-out questions after the attack."""

    forget: float = 0.3
    test: float = 0.3
    keep: float = 0.9
    back: float = 0.3
    spared: float = 0.9
    open: float | None = None
    """Of generations and clozes about what must go, where they differ from choices."""
    people: Mapping[str, float] = field(default_factory=dict)
    """The level of single people in what must go, where it is another one."""

    def level(self, role: str, modality: str, task: str = "classification", person: str = "") -> float:
        """The planted score and probability of one group of questions about one person."""
        if (role, modality) in TO_GO:
            own = {"forget": self.forget, "test": self.test}[role]
            own = own if self.open is None or task == "classification" else self.open
            return self.people.get(person, own)
        return self.spared if role == "spared" else self.keep


@dataclass(frozen=True)
class Attack:
    """A planted attack: `back` is what held-out questions come to on the select half, `told` on the report half."""

    name: str = "relearning"
    settings: Mapping[str, Any] = field(default_factory=dict)
    back: float | None = None
    told: float | None = None
    kept: float = 1.0
    control: float = 0.3
    control_kept: float = 1.0
    steps: Sequence[int] = STEPS
    failed: str = ""
    diverged: str = ""
    finished: bool = True

    @property
    def key(self) -> str:
        """By name and settings, like the real one."""
        return ATTACK if self.settings == RELEARNING.settings else content_key([self.name, dict(self.settings)])

    @property
    def state(self) -> str:
        """What the analysis should call it."""
        return "failed" if self.failed else "complete" if self.finished else "unfinished"


RELEARNING = Attack(settings={"schedule": {"steps": 40}, "trains": ["vision"]})
SUITE = (
    Attack("quantization", {"type": "Quantization", "format": "int4", "parts": ["llm"]}, steps=(0, 1)),
    Attack("quantization", {"type": "Quantization", "format": "nf4", "parts": ["llm"]}, steps=(0, 1)),
    Attack("swap_back", {"parts": ["vision"]}, steps=(0, 1)),
)
"""One-shot attacks besides."""


def tried(name: str = "relearning", count: int = 6, best: float = 0.9) -> list[Attack]:
    """A planted search: ever more comes back up to `best`; then one fails, one breaks the model and brings nothing
    back, one is unfinished."""
    levels = [0.3 + (best - 0.3) * n / (count - 1) for n in range(count)]
    found = [Attack(name, _settings(n), back=level, told=level) for n, level in enumerate(levels)]
    return [
        *found,
        Attack(name, _settings(count), failed="too many facts"),
        Attack(name, _settings(count + 1), back=0.3, told=0.3, kept=0.2, steps=(0, 40)),
        Attack(name, _settings(count + 2), finished=False),
    ]


def _settings(number: int) -> dict[str, Any]:
    return {"trains": ["vision", "llm"], "schedule": {"learning_rate": 1e-4 * (number + 1), "steps": 40}}


VANILLA = Model(forget=0.9, test=0.9, back=0.9)
REFERENCE = Model()
MODELS = {
    "perfect": Model(),
    "overshooting": Model(forget=0.05, test=0.05),
    "destroyed": Model(forget=0.1, test=0.1, keep=0.1, back=0.1),
    "hiding": Model(forget=0.32, test=0.32, back=0.9),
    "idle": VANILLA,
}


@dataclass
class Planter:
    """Writes trials into a study folder. With `noise` the scores are random draws around the planted levels."""

    root: Path
    noise: float = 0.0
    roles: Sequence[Role] = PLAIN
    counts_unlearning: bool = True
    """Whether the records have the work of unlearning; those of earlier versions do not."""
    people: Mapping[str, Sequence[str]] = field(default_factory=lambda: PEOPLE)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def study(self, methods: Sequence[str], ratios: Sequence[int], **settings: Any) -> None:
        """The head of the study."""
        write_json(self.root / "study.json", {
            "name": "planted", "git": "0123abc", "versions": {"python": "3.11", "torch": "2.11"},
            "settings": {"goal": "visual", "forget_ratios": list(ratios), "methods": list(methods), "trials": 2,
                         "seed": 0, "confirm_seeds": 1, "model": "tiny", "benchmark": "toy <&> co", **settings},
        })  # fmt: skip

    def trial(self, method: str, ratio: int, model: Model | None, *, kind: str = "vanilla", seed: int = 0,
              state: str = "complete", report: bool = False, **parameters: float) -> str:  # fmt: skip
        """One trial with its rows; returns its key."""
        key = content_key([method, ratio, kind, seed, parameters])
        folder = self.root / "trials" / key
        write_json(folder / "trial.json", {
            "key": key, "state": state, "method": method, "hyperparameters": parameters, "ratio": ratio, "seed": seed,
            "goal": "visual",
            "start": {"kind": kind, "key": f"{kind}-{ratio}"}, "reason": "" if state == "complete" else "loss is NaN",
            "cost": {"unlearn_seconds": 3.0, "score_seconds": 1.0, "overhead_seconds": 0.25, "flops": 2e9,
                     **({"unlearn_flops": 7.5e9} if self.counts_unlearning else {})},
        })  # fmt: skip
        if method != "none":
            write_json(folder / "curve.json", [2.0, 1.5, 1.25, 1.2])
        if model is not None:
            write_rows(folder / "rows" / "select.parquet", self.rows(model, "select"))
        if model is not None and report:
            write_rows(folder / "rows" / "report.parquet", self.rows(model, "report"))
        return key

    def proposal(self, method: str, number: int, ratio: int, key: str, **mark: int) -> None:
        """One proposal of the search."""
        content = {"number": number, "ratio": ratio, "params": {}, "trial": key, **mark}
        write_json(self.root / "search" / method / f"{number:04d}.json", content)

    def yardsticks(self, ratio: int, *, attacked: bool = True, references: Sequence[Model] = (REFERENCE,)) -> list[str]:
        """Vanilla and the references, one for each seed, with all their rows and attacks; the keys in this order."""
        keys = []
        for kind, seed, model in [("vanilla", 0, VANILLA), *(("reference", n, m) for n, m in enumerate(references))]:
            key = self.trial("none", ratio, model, kind=kind, seed=seed, report=True)
            blind = [self.rows(Model(0.25, 0.25, 0.25, spared=0.25), half) for half in ("select", "report")]
            grey = pd.concat(blind).query("modality == 'image_text' and task == 'classification'")
            write_rows(self.root / "trials" / key / "rows" / "blind.parquet", grey)
            if attacked:
                self.attack(key, model)
            keys.append(key)
        return keys

    def attack(self, key: str, model: Model, how: Attack | None = None) -> None:
        """`seen` questions go to 0.95, held-out ones from what they are to `model.back`, or to what the attack says.

        People differ after it as they did before. Retained people fall to the part that the attack keeps.
        """
        how = how or RELEARNING
        path = self.root / "trials" / key / "attacks" / f"{how.key}.parquet"
        about = {"attack": how.name, "settings": dict(how.settings)}
        if how.failed:
            write_json(path.with_suffix(".json"), {**about, "failed": how.failed})
            return
        write_json(path.with_suffix(".json"), {**about, "diverged": how.diverged, "seconds": 2.0})
        lines: list[dict[str, Any]] = []
        forget, retain = list(self.people["forget"]), self.people["retain"]
        for step, half, person in itertools.product(how.steps, ("select", "report"), forget):
            number, part = forget.index(person), step / how.steps[-1]
            start = model.level("forget", "image_text", "classification", person)
            for question in range(4):
                held_out = "person" if number % 2 else ("fact" if question % 2 else "")
                back = how.back if half == "select" else how.told
                end = (model.back if back is None else back) + (start - model.forget) if held_out else 0.95
                level = start + (end - start) * part
                line = self._line(half, person, "forget", "image_text", "classification", question, level)
                lines.append({**line, "step": step, "seen": not held_out, "held_out": held_out})
        for step, half, person in itertools.product(how.steps, ("select", "report"), retain):
            level = model.keep * (1 + (how.kept - 1) * step / how.steps[-1])
            line = self._line(half, person, "retain", "image_text", "classification", 0, level)
            lines.append({**line, "step": step, "held_out": "person"})
        write_rows(path, pd.DataFrame(lines))

    def search(self, key: str, model: Model, name: str, tried: Sequence[Attack], control: str) -> None:
        """The attacker's search against a trial: each attack on it and, with nothing coming back, on the control."""
        for number, how in enumerate(tried):
            proposal = {"number": number, "params": dict(how.settings), "trial": content_key([key, how.key]),
                        "attack": how.key}  # fmt: skip
            write_json(self.root / "attack_search" / key / name / f"{number:04d}.json", proposal)
            if how.state != "unfinished":
                self.attack(key, model, how)
            if how.state == "complete":
                self.attack(control, REFERENCE, self._beside(how))

    def _beside(self, how: Attack) -> Attack:
        """What an attack does to the control."""
        return dataclasses.replace(how, back=how.control, told=how.control, kept=how.control_kept)

    def sequence(self, key: str, levels: Sequence[Sequence[float]], *, retain: Sequence[float] = (), diverged: str = "",
                 requests: int | None = None) -> None:  # fmt: skip
        """Requests one after another: `levels[step]` holds the accuracy on the people of each request."""
        count = requests or len(levels[0])
        people = [PEOPLE["forget"][number::count] for number in range(count)]
        lines = []
        for step, (now, kept) in enumerate(zip(levels, retain or [0.9] * len(levels), strict=True)):
            groups = [*zip(people, ["forget"] * count, now, strict=True), (PEOPLE["retain"], "retain", kept)]
            for who, role, level in groups:
                for person, modality, n in itertools.product(who, MODALITIES, range(4)):
                    line = self._line("report", person, role, modality, "classification", n,
                                      level if modality == "image_text" else 0.9)  # fmt: skip
                    lines.append({**line, "step": step})
        path = self.root / "trials" / key / "sequence" / f"{count}.parquet"
        write_json(path.with_suffix(".json"), {"people": people, "diverged": diverged, "seconds": 3.0})
        write_rows(path, pd.DataFrame(lines))

    def rows(self, model: Model, half: str) -> pd.DataFrame:
        """All questions of one half: four of each kind on each person.

        The validation half has choices, and all tasks about what must go, to which nothing is replied.
        """
        lines = [
            self._line(half, person, role, modality, task, number, model.level(role, modality, task, person))
            for role in self.roles
            for modality in MODALITIES
            for task in (TASKS if half == "report" or (role, modality) in TO_GO else TASKS[:1])
            for person in self.people.get(role, self.people["forget"])
            for number in range(4)
        ]
        return pd.DataFrame(lines).astype(ROW_COLUMNS)

    def _line(
        self, half: str, person: str, role: str, modality: str, task: str, number: int, level: float
    ) -> dict[str, Any]:
        score = probability = level
        if self.noise:
            probability = float(np.clip(level + self.noise * self.random.normal(), 0.01, 0.99))
            score = float(self.random.random() < level)
        if task == "classification":
            told = {"probability": probability, "truth_ratio": 1.0 - probability, "exposure": 2.0 * probability,
                    **dict.fromkeys(MEMBER, probability)}  # fmt: skip
        elif half == "select":
            told, score = {}, float("nan")
        else:
            told = dict.fromkeys(OVERLAP, score)
        return row(
            question=f"{half}-{person}-{role}-{modality}-{task}-{number}", person=person, role=role, modality=modality,
            task=task, half=half, score=score, likelihood=probability, answer="A", fact=f"{task}-{number}",
            reply="" if task != "classification" and half == "select" else "A", **told,
        )  # fmt: skip


def plant(
    root: Path,
    models: Mapping[str, Model] = MODELS,
    ratios: Sequence[int] = (10, 15),
    attributes: Sequence[str] | None = None,
) -> Path:
    """A finished study: every model is the second proposal after a default that did nothing; `failing` never ran.

    With `attributes` only these were to be forgotten, and there are questions about what was spared.
    """
    planter = Planter(root, roles=ROLES if attributes else PLAIN)
    settings = {} if attributes is None else {"forget_attributes": list(attributes)}
    planter.study([*models, "failing"], ratios, **settings)
    winners: dict[str, dict[str, Any]] = {}
    for place, ratio in enumerate(ratios):
        planter.yardsticks(ratio)
        for method, model in models.items():
            default = planter.trial(method, ratio, VANILLA, strength=0.0)
            best = planter.trial(method, ratio, model, report=True, strength=1.0)
            again = planter.trial(method, ratio, model, report=True, seed=1, strength=1.0)
            planter.proposal(method, 3 * place, ratio, default, default=True)
            planter.proposal(method, 3 * place + 1, ratio, best)
            planter.proposal(method, 3 * place + 2, ratio, best)
            for key in (best, again):
                planter.attack(key, model)
            winners.setdefault(method, {})[str(ratio)] = {"trials": [best, again]}
        planter.proposal("failing", place, ratio, planter.trial("failing", ratio, None, state="failed"), default=True)
    write_json(root / "winners.json", winners)
    return root


def plant_attacks(root: Path, models: Mapping[str, Model] = MODELS, ratios: Sequence[int] = (10, 15)) -> Path:
    """A finished study with more kinds of attack; at the first ratio also with a search and three requests in turn."""
    plant(root, models, ratios)
    planter = Planter(root)
    trials = [read_json(path) for path in sorted(root.glob("trials/*/trial.json"))]
    winners = read_json(root / "winners.json")
    for ratio in ratios:
        bars = {t["start"]["kind"]: t["key"] for t in trials if t["method"] == "none" and t["ratio"] == ratio}
        for how in SUITE:
            planter.attack(bars["vanilla"], VANILLA, how)
            planter.attack(bars["reference"], REFERENCE, how)
        planter.attack(bars["vanilla"], VANILLA, dataclasses.replace(tried(count=4)[3], back=0.95, told=0.95))
        for method, model in models.items():
            key, *further = winners[method][str(ratio)]["trials"]
            for how, seed in itertools.product(SUITE, (key, *further)):
                planter.attack(seed, model, how)
            if ratio != ratios[0]:
                continue
            best = model.back if model.back <= REFERENCE.back else min(0.97, model.back + 0.05)
            asked = tried(count=4, best=best)
            planter.search(key, model, "relearning", [RELEARNING, *asked], bars["reference"])
            for seed in further:  # what the search found is run on all seeds
                planter.attack(seed, model, asked[3])
            low = model.forget
            planter.sequence(key, [(0.9, 0.9, 0.9), (low, 0.9, 0.9), (low, low, 0.9), (model.back, low, low)],
                             retain=[0.9, *[model.keep] * 3])  # fmt: skip
    return root


def plant_pool(root: Path, seeds: int = 2, ratios: Sequence[int] = (10, 15)) -> None:
    """Likelihood separates and half of its gap is lost by rounding, accuracy says nothing, BLEU is upside down,
    probability separates and is not fooled; relearning closes a quarter of the gap that likelihood sees."""
    planter = Planter(root)
    for ratio, seed, knows in itertools.product(ratios, range(seeds), (True, False)):
        rows = pd.concat([planter.rows(Model(), half) for half in ("select", "report")], ignore_index=True)
        rows = rows[rows["role"].isin(("forget", "test")) & (rows["modality"] == "image_text")]
        level = 0.9 if knows else 0.1
        choice, said = rows["task"] == "classification", rows["task"] == "generation"
        empty = rows.assign(**dict.fromkeys(UNTOLD, np.nan))
        plain = empty.assign(score=0.5, likelihood=level, probability=np.where(choice, level, np.nan),
                             bleu=np.where(said, 1 - level, np.nan))  # fmt: skip
        parts = {
            "plain": plain,
            "quantized": plain.assign(likelihood=0.5 if knows else 0.1),
            "relearned": plain.assign(likelihood=0.9 if knows else 0.3, held_out="person"),
        }
        for state, found in parts.items():
            path = StudyFolder(root).meta_evaluation(f"{ratio}-{seed}-{knows}", state)
            write_rows(path, found)
            about = {"state": state, "ratio": ratio, "seed": seed, "knows": knows, "settings": None, "failed": ""}
            write_json(path.with_suffix(".json"), about)
