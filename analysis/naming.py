"""What methods, metrics, attacks and groups of questions are called in tables, figures and sentences."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from study.core.terms import PARTS, Part

NAMES = {"image_text": "image", "text": "text", "person": "held-out people", "fact": "held-out facts", "seen": "given"}
METHODS = {
    "gradient_ascent": "Gradient ascent", "gradient_difference": "GradDiff", "kl_minimization": "KL minimization",
    "manu": "MANU", "mmunlearner": "MMUnlearner", "npo": "NPO", "preference_optimization": "Preference optimization",
    "prompting": "Prompting", "rmu": "RMU", "satimp": "SatImp", "simnpo": "SimNPO", "undial": "UNDIAL",
    "visual_anchor": "Visual anchor", "vkd": "VKD", "wga": "WGA",
}  # fmt: skip
"""Methods as their papers write them. One that is not listed is shown by the name of its file."""
METRICS = {
    "ks": "KS", "js": "JS", "js_released": "JS (CLEAR's code)", "rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L", "rouge_l_recall": "ROUGE-L recall", "bleu": "BLEU", "rlf": "RLF", "rlr": "RLR",
    "member_loss": "MIA: LOSS", "member_zlib": "MIA: zlib", "member_min_k": "MIA: Min-K%",
    "member_min_k_plus_plus": "MIA: Min-K%++",
}  # fmt: skip
"""Metrics that are not written as their names in docs/metrics.md with spaces. MIA: membership inference attack."""
HALVES = {"select": "validation half", "report": "test half"}
"""The halves of the questions: one chooses trials and attacks, the other reports them."""
LONGEST = 40
"""Characters of a setting that is text, such as the words of a prompt; longer ones would fill a column of a table."""


SHARES = {"people": "people", "facts": "facts", "share": "weights"}
"""Settings of attacks that are shares, and of what."""
PART_NAMES: dict[Part, str] = {"vision": "vision tower", "projector": "projector", "llm": "LLM"}
MODULES: dict[tuple[Part, ...], str] = {("vision", "projector"): "visual module", PARTS: "whole model"}
FIRST = ("people", "facts", "data", "trains", "parts")
"""Settings of attacks that tell more than others: what the attacker is given, and what is changed."""
ALONE = ("format", "kind", "template", "wording", "metric", "about", "scope", "variant")
"""Settings whose value says what it is."""


def method(label: object) -> str:
    """`npo:modality=text,lora_rank=16` as `NPO (text, LoRA rank 16)`."""
    name, _, settings = str(label).partition(":")
    shown = ", ".join(_phrase(*_pair(one)) for one in settings.split(",") if one)
    written = METHODS.get(name, words(name))
    return f"{written} ({shown})" if shown else written


def _pair(setting: str) -> tuple[str, object]:
    """`beta=0.12345678` as `beta` and `0.1235`: whoever pastes a winner gives every digit."""
    path, _, value = setting.partition("=")
    name = path.removeprefix("schedule.")
    if name in ("trains", "parts"):
        return name, value.split("+")
    if name == "lora_rank" and value.isdecimal():
        return name, int(value)
    broken = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value) and not value.isdecimal()
    return name, f"{float(value):.4g}" if broken else words(value.replace("+", " + "))


def metric(name: str) -> str:
    """`rouge_l_recall` as `ROUGE-L recall`."""
    return METRICS.get(name, words(name))


def words(name: str) -> str:
    """A name of the code as words."""
    return name.replace("_", " ")


def wrapped(text: str, width: int) -> str:
    """Text in as few lines of at most `width` characters as it takes, all about as long."""
    return in_lines(text, len(textwrap.wrap(text, width)))


def in_lines(text: str, most: int) -> str:
    """Text in at most `most` lines, all as narrow as they can be."""
    width = max(map(len, text.split()), default=1)
    while len(textwrap.wrap(text, width)) > max(1, most):
        width += 1
    return "\n".join(textwrap.wrap(text, width))


def listed(texts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def differing(attacks: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """A name for each attack key, as `relearning, 30 % of facts, visual module`.

    It has the kind and as few of the settings in which attacks of that kind differ as tell them apart, the most
    telling first.
    """
    flat = {key: leaves(settings) for key, (_, settings) in attacks.items()}
    alike: dict[str, list[str]] = {}
    for key in sorted(attacks, key=lambda key: (attacks[key][0], key)):
        alike.setdefault(attacks[key][0], []).append(key)
    found: dict[str, str] = {}
    for kind, keys in alike.items():
        for key, phrases in zip(keys, _telling([flat[key] for key in keys]), strict=True):
            text = ", ".join([words(kind), *phrases])
            found[key] = text if text not in found.values() else f"{text} ({key[:4]})"
    return found


def _telling(settings: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What tells some attacks of one kind apart: for each the phrases of its settings."""
    every = list(dict.fromkeys(name for one in settings for name in one))
    varied = [name for name in every if len({repr(one.get(name)) for one in settings}) > 1]
    varied.sort(key=lambda name: name.rpartition(" ")[2] not in FIRST)
    found: list[list[str]] = [[] for _ in settings]
    for name in varied:
        if len(set(map(tuple, found))) == len(settings):
            break
        for one, phrases in zip(settings, found, strict=True):
            if name in one:
                phrases.append(setting(name, one[name]))
    return [[phrase for phrase in phrases if phrase] for phrases in found]


def setting(name: str, value: object) -> str:
    """A setting of an attack as a reader says it; nothing of a share that is all. Of a link its name comes first."""
    link, _, own = name.rpartition(" ")
    phrase = _phrase(own, value)
    return f"{link} {phrase}".strip() if phrase else ""


def _phrase(name: str, value: object) -> str:
    if name in SHARES and isinstance(value, float | int):
        return f"{100 * value:.3g} % of {SHARES[name]}" if value < 1 else ""
    if name in ("trains", "parts") and isinstance(value, Sequence):
        parts = tuple(part for part in PARTS if part in value)
        return MODULES.get(parts) or listed([PART_NAMES[part] for part in parts])
    if name == "modality":
        return NAMES.get(str(value).replace(" ", "_"), "both modalities")
    if isinstance(value, bool):
        return f"{'with' if value else 'without'} {words(name)}"
    if name == "steps":
        return f"{value} steps"
    if name == "lora_rank":
        return f"LoRA rank {value}" if value else "all weights"
    return words(plain(value)) if name in ALONE else f"{words(name)} {plain(value)}"


def leaves(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings as one level: those of a schedule stand beside the attack's own."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= leaves(value)
        elif key != "type":
            flat[key] = value
    return flat


def plain(value: object) -> str:
    """A setting as people write it: few digits, lists joined, long texts cut."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " + ".join(map(plain, value)) or "none"
    if isinstance(value, float):
        return f"{value:.3g}"
    return textwrap.shorten(str(value), LONGEST, placeholder=" ...")
