"""Threat models of attacks: goal, capability, knowledge and stage, in the terms of NIST AI 100-2e2025."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

ThreatGoal = Literal["data extraction", "membership inference", "identification"]
Capability = Literal["query access", "scores", "internals", "model control"]
Knowledge = Literal["black box", "grey box", "white box"]
ThreatStage = Literal["inference", "deployment", "fine-tuning"]

TERMS: dict[str, str] = {
    "data extraction": "to learn a fact about a person who was to be forgotten",
    "membership inference": "to tell whether a fact about a person was in the training data",
    "identification": "to tell who a picture shows",
    "query access": "asks questions and reads the replies",
    "scores": "also reads how likely the model finds an answer",
    "internals": "also reads what happens inside the model: activations or gradients",
    "model control": "holds the weights and changes them",
    "black box": "knows nothing of the model but its replies",
    "grey box": "knows something of the data: names, candidate answers or other facts",
    "white box": "knows the architecture and the weights",
    "inference": "while the model is asked",
    "deployment": "when the weights are put to use: rounded, pruned, merged or exchanged in part, without training",
    "fine-tuning": "by training the released weights further",
}
"""What each term means, weaker attackers first within each of the four."""


@dataclass(frozen=True)
class Threat:
    """The attacker that an attack stands for; the weakest by default."""

    goal: ThreatGoal = "data extraction"
    capability: Capability = "query access"
    knowledge: Knowledge = "black box"
    stage: ThreatStage = "inference"


def strongest(threats: Sequence[Threat]) -> Threat:
    """The attacker who can do all that several can, with the goal of the last."""

    def most(scale: Any, asked: Iterable[str]) -> Any:
        return max(asked, key=get_args(scale).index)

    return Threat(
        threats[-1].goal,
        most(Capability, (threat.capability for threat in threats)),
        most(Knowledge, (threat.knowledge for threat in threats)),
        most(ThreatStage, (threat.stage for threat in threats)),
    )
