"""Every attack says whom it stands for, and composed ones stand for whoever can do all that their links take."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from study.attacks.chain import Chain
from study.attacks.in_context import InContext
from study.attacks.membership_inference import MembershipInference
from study.attacks.paraphrase import Paraphrase
from study.attacks.quantization import Quantization
from study.attacks.relearning import Relearning
from study.attacks.sampled_extraction import SampledExtraction
from study.attacks.swap_back import SwapBack
from study.contracts import Attack
from study.core.plugins import find, known
from study.core.threat import TERMS, Threat, strongest

TOLD = {
    Relearning(): Threat("data extraction", "model control", "white box", "fine-tuning"),
    Quantization(): Threat("data extraction", "model control", "white box", "deployment"),
    Paraphrase(): Threat(),
    SampledExtraction(): Threat(),
    InContext(): Threat(knowledge="grey box"),
    MembershipInference(): Threat("membership inference", "scores", "grey box", "inference"),
    Chain((SwapBack(), Relearning())): Threat("data extraction", "model control", "white box", "fine-tuning"),
    Chain((Quantization(), MembershipInference())): Threat(
        "membership inference", "model control", "white box", "deployment"
    ),
}


@pytest.mark.parametrize("attack", TOLD, ids=lambda attack: type(attack).__name__)
def test_an_attack_stands_for_its_attacker(attack: Attack) -> None:
    assert attack.threat == TOLD[attack]


@pytest.mark.parametrize("name", known("attacks"))
def test_whoever_writes_to_the_model_controls_it(name: str) -> None:
    """And nobody else does: the threat of an attack agrees with the parts that it changes."""
    attack: Attack = find("attacks", name)()
    assert (attack.threat.capability == "model control") == bool(attack.changes)
    assert (attack.threat.stage == "inference") == (not attack.changes)


def test_the_strongest_of_several_is_as_strong_as_each_in_everything() -> None:
    one = Threat(capability="scores", knowledge="white box")
    other = Threat("identification", "model control", "grey box", "deployment")
    assert strongest([one, other]) == Threat("identification", "model control", "white box", "deployment")
    assert strongest([other, one]).goal == "data extraction"


def test_every_term_has_a_meaning() -> None:
    assert set(TERMS) == {term for scale in get_type_hints(Threat).values() for term in get_args(scale)}
