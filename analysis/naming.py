"""What methods, metrics, attacks and groups of questions are called in tables, figures and sentences."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

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


def method(label: object) -> str:
    """`npo:modality=text,lora_rank=16` as `NPO (modality text, lora rank 16)`."""
    name, _, settings = str(label).partition(":")
    shown = ", ".join(_setting(pair) for pair in settings.split(",") if pair)
    written = METHODS.get(name, words(name))
    return f"{written} ({shown})" if shown else written


def _setting(pair: str) -> str:
    """`beta=0.12345678` as `beta 0.1235`: whoever pastes a winner gives every digit."""
    name, _, value = pair.partition("=")
    broken = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value) and not value.isdecimal()
    return f"{words(name)} {f'{float(value):.4g}' if broken else words(value.replace('+', ' + '))}"


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
    """A readable name for each attack key: its kind, and the settings in which attacks of that kind differ."""
    flat = {key: leaves(settings) for key, (_, settings) in attacks.items()}
    values: dict[str, dict[str, set[str]]] = {}
    for key, (kind, _) in attacks.items():
        for name, value in flat[key].items():
            values.setdefault(kind, {}).setdefault(name, set()).add(repr(value))
    found: dict[str, str] = {}
    for key, (kind, _) in sorted(attacks.items(), key=lambda item: (item[1][0], item[0])):
        varied = [name for name in flat[key] if len(values[kind][name]) > 1]
        shown = [f"{words(name)} {plain(flat[key][name])}" for name in varied]
        text = ", ".join([words(kind), *shown])
        found[key] = text if text not in found.values() else f"{text} ({key[:4]})"
    return found


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
