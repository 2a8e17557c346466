"""A study folder with known answers, written by hand: what each model scores is planted, nothing is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.questions import MODALITIES, ROLES
from study.store import ROW_COLUMNS, content_key, write_json, write_rows

STEPS = (0, 5, 10, 20, 40)
ATTACK = "a1b2c3"
PEOPLE = {role: [f"{role}-{n}" for n in range(size)] for role, size in (("forget", 8), ("retain", 12), ("real", 6))}


@dataclass(frozen=True)
class Model:
    """What a planted model scores: `keep` unless said otherwise; `back` on held-out questions after the attack."""

    forget: float = 0.3
    test: float = 0.3
    keep: float = 0.9
    back: float = 0.3

    def level(self, role: str, modality: str) -> float:
        """The planted score and probability of one group of questions."""
        levels = {"forget": self.forget, "test": self.test} if modality == "image_text" else {}
        return levels.get(role, self.keep)


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
            "start": {"kind": kind, "key": f"{kind}-{ratio}"}, "reason": "" if state == "complete" else "loss is NaN",
            "cost": {"unlearn_seconds": 3.0, "score_seconds": 1.0, "overhead_seconds": 0.25},
        })  # fmt: skip
        if model is not None:
            write_rows(folder / "rows" / "select.parquet", self.rows(model, "select"))
        if model is not None and report:
            write_rows(folder / "rows" / "report.parquet", self.rows(model, "report"))
        return key

    def proposal(self, method: str, number: int, ratio: int, key: str, **mark: bool) -> None:
        """One proposal of the search."""
        content = {"number": number, "ratio": ratio, "params": {}, "trial": key, **mark}
        write_json(self.root / "search" / method / f"{number:04d}.json", content)

    def yardsticks(self, ratio: int, *, attacked: bool = True) -> None:
        """Vanilla and the reference with all their rows and attacks."""
        for kind, model in (("vanilla", VANILLA), ("reference", REFERENCE)):
            key = self.trial("none", ratio, model, kind=kind, report=True)
            blind = [self.rows(Model(0.25, 0.25, 0.25), half) for half in ("select", "report")]
            grey = pd.concat(blind).query("modality == 'image_text' and task == 'classification'")
            write_rows(self.root / "trials" / key / "rows" / "blind.parquet", grey)
            if attacked:
                self.attack(key, model)

    def attack(self, key: str, model: Model) -> None:
        """Relearning: `seen` questions go to 0.95, held-out ones from what they are to `model.back`."""
        folder = self.root / "trials" / key / "attacks"
        write_json(folder / f"{ATTACK}.json", {"attack": "relearning", "settings": {"steps": 40, "trains": ["vision"]}})
        lines: list[dict[str, Any]] = []
        for step in STEPS:
            for number, person in enumerate(PEOPLE["forget"]):
                for question in range(4):
                    held_out = "person" if number % 2 else ("fact" if question % 2 else "")
                    end = model.back if held_out else 0.95
                    level = model.forget + (end - model.forget) * step / STEPS[-1]
                    line = self._line("report", person, "forget", "image_text", "classification", question, level)
                    lines.append({**line, "step": step, "seen": not held_out, "held_out": held_out})
        write_rows(folder / f"{ATTACK}.parquet", pd.DataFrame(lines))

    def rows(self, model: Model, half: str) -> pd.DataFrame:
        """All questions of one half: four of each kind on each person."""
        tasks = ("classification", "generation", "cloze") if half == "report" else ("classification",)
        lines = [
            self._line(half, person, role, modality, task, number, model.level(role, modality))
            for role in ROLES
            for modality in MODALITIES
            for task in tasks
            for person in PEOPLE.get(role, PEOPLE["forget"])
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
        return {
            "question": f"{half}-{person}-{role}-{modality}-{task}-{number}", "person": person, "role": role,
            "modality": modality, "task": task, "half": half, "score": score,
            "probability": probability if task == "classification" else float("nan"), "reply": "A", "step": 0,
            "seen": False, "held_out": "",
        }  # fmt: skip


def plant(root: Path, models: Mapping[str, Model] = MODELS, ratios: Sequence[int] = (10, 15)) -> Path:
    """A finished study: every model is the second proposal after a default that did nothing; `failing` never ran."""
    planter = Planter(root)
    planter.study([*models, "failing"], ratios)
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
            planter.attack(best, model)
            winners.setdefault(method, {})[str(ratio)] = {"trials": [best, again]}
        planter.proposal("failing", place, ratio, planter.trial("failing", ratio, None, state="failed"), default=True)
    write_json(root / "winners.json", winners)
    return root
