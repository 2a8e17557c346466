"""Named studies: settings that belong together. A preset of your own is a function and a line of `PRESETS`.

What a preset sets of methods and attacks stands here by the names of their fields: so the command line is read, and its
help shown, without importing any of them, and torch with them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from study.settings import Cost, Gate, Study
from study.training.schedule import Schedule

TINY_BETA2 = 0.98
"""AdamW's second moment remembers 1 / (1 - beta2) = 50 steps: about as many as the tiny schedules have. The usual 0.999
averages over 1000, that is, over everything since the first step."""


VIEWS = "crop+blur+flip+brighten+darken+grey+jpeg+border"
"""Changes of a picture that leave a face in it. The others (shrink, noise, rotate) cost vanilla what it knows, too."""

SUITE = (
    "relearning",
    "swap_back",
    "swap_back:parts=,head=true",
    "quantization",
    "logit_lens",
    f"image_transform:kind={VIEWS}",
    "paraphrase",
    "second_turn",
    "sampled_extraction:ks=1+8,draws=32",  # four times the draws that leak@8 needs: at most a quarter of the variance
)
"""Attacks that everybody can do: some training, public parts put back, other precisions, an early reading, pictures and
wordings that no training saw, a second question, and sampled replies (32 to a question, told as leak at 1 and at 8)."""

PRECISIONS = ({"format": "int8"}, {"format": "int4"}, {"format": "nf4"})
"""The quantizations of the suite."""


def _tower_first(rate: float, steps: int) -> str:
    """The public tower put back, then the rest trained on half of the people, beside retain lessons."""
    mix = f"people=0.5,facts=1.0,trains=projector+llm,retain_weight=1,learning_rate={rate:g},steps={steps}"
    return f"swap_back/relearning:{mix}"


def _some_people(share: float) -> str:
    """The relearning of the suite on a share of the people."""
    return f"relearning:people={share:g},facts=1.0,trains=vision+projector+llm,retain_weight=1,learning_rate=0.0005"


def _tiny() -> Study:
    """Values without a reason beside them were chosen by trial on the tiny study."""
    return Study(
        forget_ratios=(20,),
        reference_seeds=3,
        learn=Schedule(
            steps=540,  # with 26 pictures ten passes over the 1400 that are taught (70 people, 20 each)
            learning_rate=3e-3,  # high because the model is tiny, and its language model is random before
            pictures=26,
            lessons_per_picture=5,
            texts=3,  # a fifth of a step's lessons, but 4 % of all: utility counts text as much as images
            lessons_per_text=12,
            warmup=40,  # nearly the memory of the second moment, which is unreliable before
            decay="cosine",
            beta2=TINY_BETA2,
            weight_decay=0.01,
        ),
        defaults=_tiny_defaults(),
        attacks=(*SUITE, _tower_first(5e-4, 20)),
        attack_grid={"relearning": _tiny_attackers(), "quantization": PRECISIONS},
        attack_trials=4,
        cost=Cost(base=60, learn=75, trial=7, report=3, attack=2.5),  # measured on two cores (x86-64)
    )


def _tiny_defaults() -> dict[str, dict[str, Any]]:
    """Those of VKD and MMUnlearner were tried several times, those of the other methods once or never.

    Ascent gets fewer steps than losses with a bound: it has no minimum and soon collapses the model.
    """

    def schedule(rate: float, steps: int, pictures: int = 6, texts: int = 1) -> Schedule:
        """Six pictures: one for every second of the twelve forget people; and a group of lessons without a picture."""
        return Schedule(steps=steps, learning_rate=rate, pictures=pictures, texts=texts, beta2=TINY_BETA2)

    def visual(steps: int) -> Schedule:
        """For losses on features: without the LLM a picture is cheap, so there are more pictures and steps.

        They have no lessons; only the search of the visual anchor asks some: two per picture, a quarter of the tokens
        of 8.
        """
        return dataclasses.replace(schedule(2e-3, steps, pictures=12, texts=0), lessons_per_picture=2)

    return {
        # A step through the LLM costs 2.4 times one on features: a trial of 100 costs 0.8 times one of 300.
        "vkd": {"schedule": dataclasses.replace(visual(100), pictures=6, lessons_per_picture=4)},
        "vkd:variant=features": {"schedule": visual(300)},
        "gradient_ascent": {"schedule": schedule(5e-4, 40)},
        "gradient_difference": {"schedule": schedule(5e-4, 60)},
        "kl_minimization": {"schedule": schedule(5e-4, 60)},
        "npo": {"schedule": schedule(5e-4, 60)},
        "prompting": {},
        "preference_optimization": {"schedule": schedule(1e-3, 80)},
        "simnpo": {"schedule": schedule(1e-3, 80)},
        "rmu": {"layer": 1, "coefficient": 20.0, "schedule": schedule(1e-3, 80)},  # the middle of three layers
        "undial": {"retain_weight": 1.0, "schedule": schedule(1e-3, 80)},
        "wga": {"schedule": schedule(5e-4, 60)},
        "satimp": {"forget_weight": 1.0, "schedule": schedule(1e-3, 80)},
        "mmunlearner": {"saliency_threshold": 2.0, "forget_weight": 0.5, "schedule": schedule(5e-4, 60)},
        "manu": {"share": 0.2},
        "visual_anchor": {"epsilon": 0.1, "layers": "projector", "schedule": visual(100)},
    }


def _tiny_attackers() -> tuple[dict[str, Any], ...]:
    """Two are given 30 % of the facts about everybody, so that facts are held out, and train everything, beside retain
    lessons, or the visual module alone; the third is given half of the people, so that people are held out. The attack
    search starts from the first.
    """

    def relearn(rate: float) -> Schedule:
        """At a constant rate, so that a model scored after few steps was attacked as hard as it would be later."""
        return Schedule(steps=40, learning_rate=rate, pictures=6, decay="constant", beta2=TINY_BETA2)

    return (
        {"people": 1.0, "facts": 0.3, "retain_weight": 1.0, "schedule": relearn(5e-4)},
        {"people": 1.0, "facts": 0.3, "trains": ("vision", "projector"), "schedule": relearn(1e-3)},
        {"people": 0.5, "facts": 1.0, "retain_weight": 1.0, "schedule": relearn(5e-4)},
    )


def _audit() -> Study:
    """Most attacks that mean something for the tiny model, and a longer search, also behind the public tower.

    Left out are `adversarial_image` and `probe`, for their cost; texts that this model was never taught to follow
    (`jailbreak`, `prefill` with other words, `figstep`); and `adapter_scaling`: nothing here trains adapters.
    """
    tiny = _tiny()
    return dataclasses.replace(
        tiny,
        study_dir=Path("runs/audit"),
        attacks=(
            *tiny.attacks,
            # One in two is in the suite; where all are given nothing is held out, and the gain is of what was given.
            *(_some_people(share) for share in (0.05, 0.25, 1.0)),
            "interpolation",
            "pruning",
            "membership_inference:metric=zlib",
            "image_transform",
            "image_transform:strength=1.0",
            "paraphrase:wording=dataset",
            "name_hint",
            "typographic",
            "in_context",
            "prefill:text=This person is",
            "relearning:data=benign,people=1,facts=1,retain_weight=0",  # what is not given cannot be given in shares
            "relearning:data=noise,people=1,facts=1",
            "swap_back/quantization",
        ),
        searched_attacks=("relearning", "swap_back/relearning"),
        attack_trials=12,
    )


def _smoke() -> Study:
    """All that is on by default in a minute or two, as small as it can be, and a gate that lets any model pass.

    Four trials per method at two ratios: the two defaults and a proposal at each that the sampler models. Three steps
    are the fewest with two rungs.
    """
    few = Schedule(steps=3, learning_rate=1e-3, pictures=2, lessons_per_picture=2)
    return Study(
        study_dir=Path("runs/smoke"),
        model="tiny:steps=0,width=32,layers=2",
        benchmark="synthetic:people=20,celebrities=8,views=2,strangers=8",
        methods=("vkd", "gradient_ascent"),
        trials=4,
        startup_trials=1,
        confirm_seeds=1,
        reference_seeds=2,
        learn=dataclasses.replace(few, steps=4, texts=1),
        gate=Gate(known=0.0, test=0.0, blind=1.0),
        defaults={"vkd": {"schedule": few}, "gradient_ascent": {"schedule": few}},
        attack_grid={"relearning": ({"score_at": (1, 2), "schedule": few},)},
    )


PUBLISHED = Schedule(
    # MLLMU-Bench (arXiv 2410.22108), finetune.py, baselines/*.py and README: batches of 4 questions, each with its
    # picture; AdamW at 2e-5 with linear decay and no warmup; rank-16 adapters, alpha 16, dropout 0.05.
    epochs=1.0,  # of unlearning: 96, 193 and 289 updates at 5, 10 and 15 %
    learning_rate=2e-5,
    pictures=4,
    lessons_per_picture=1,
    precision="bfloat16",
    lora_rank=16,
)
"""The schedule with which the authors of MLLMU-Bench unlearn."""
TAUGHT = dataclasses.replace(PUBLISHED, epochs=5.0)
"""How they teach (finetune.py): about 9,600 updates on 7,704 lessons. What comes of it knows half of its people."""
MEMORISED = dataclasses.replace(
    PUBLISHED,
    # OFFSIDE (arXiv 2510.22535) teaches Qwen2.5-VL-7B with adapters at 1e-4, in batches of 4 x 4 and 8 epochs. There
    # are more epochs here because nobody has shown how many a 7B model needs to know 90 % of what it is asked.
    epochs=20.0,
    learning_rate=1e-4,
    lessons_per_picture=4,
)
"""A schedule that is meant to pass the gate: four times the passes of `TAUGHT`, in batches four times as large."""
DATA = "data/MLLMU-Bench"
FORMS = "forms=cloze+question"
"""Each lesson's fact is taught as a cloze and as a bare answer, too: choices and clozes ask for it so, and ft_Data
states it in a sentence alone."""


def _downloaded(name: str, folder: str) -> Study:
    """A 7B or 8B model on MLLMU-Bench with the schedules that the benchmark's authors publish (one GPU per trial).

    24 trials are eight per forget ratio, the first of them the default. Nothing here was tuned on a 7B model.
    """
    weights = dataclasses.replace(PUBLISHED, lora_rank=0)  # of the visual module, or behind a mask
    # Sixteen lessons a step: an attacker is not bound to the batch that a method was published with.
    relearn = dataclasses.replace(PUBLISHED, epochs=0.0, steps=40, lessons_per_picture=4, decay="constant")
    adapted = (
        *("gradient_ascent", "gradient_difference", "kl_minimization", "npo", "preference_optimization"),
        *("simnpo", "rmu", "undial", "wga", "satimp"),
    )
    return Study(
        study_dir=Path("runs") / name,
        model=f"hf:path=models/{folder},dtype=bfloat16",
        benchmark=f"mllmu:{DATA}",
        forget_ratios=(5, 10, 15),
        trials=24,
        gpus_per_trial=1,
        scored_error=0.03,  # about 280 of the 1,100 choices about retained people in each modality
        learn=TAUGHT,
        defaults={
            "vkd": {"schedule": weights},
            "visual_anchor": {"schedule": weights},
            "mmunlearner": {"schedule": dataclasses.replace(weights, learning_rate=1e-5)},  # its README
            **{method: {"schedule": PUBLISHED} for method in adapted},
        },
        attacks=(*SUITE, "adapter_scaling", _tower_first(relearn.learning_rate, relearn.steps)),
        attack_grid={
            "relearning": (
                {"people": 1.0, "facts": 0.3, "retain_weight": 1.0, "schedule": relearn},
                {"people": 0.5, "facts": 1.0, "schedule": relearn},
            ),
            "quantization": PRECISIONS,
        },
    )


def _pair(name: str, model: str, folder: str) -> dict[str, tuple[str, Study]]:
    """The presets of a downloaded model: with the published schedule of teaching, and with one meant to pass the gate.

    The schedules of unlearning are those published for LLaVA in both. The authors publish the same for Idefics2-8B, and
    others teach Qwen2.5-VL-7B in 5 epochs and batches of 4 as well (PAVA, with rank 8); for Qwen3-VL-8B and
    LLaVA-OneVision-7B nothing that we know of is published on this benchmark.
    """
    published = dataclasses.replace(_downloaded(name, folder), measure="known")  # half does not pass the gate
    longer = f"{name}_memorise"
    memorised = dataclasses.replace(
        published,
        study_dir=Path("runs") / longer,
        benchmark=f"mllmu:path={DATA},{FORMS}",
        learn=MEMORISED,
        measure="all",
    )
    what = f"{model} and MLLMU-Bench from local folders, on GPUs, taught"
    return {
        name: (f"{what} as published for LLaVA; only what it then knows counts.", published),
        longer: (f"{what} for longer, in more forms and at a higher rate, meant to pass the gate.", memorised),
    }


def _any() -> Study:
    """A model that no preset names. What it then knows is counted, since nobody has shown what it takes to teach it."""
    settings = _downloaded("{model}", "")
    return dataclasses.replace(settings, model="", measure="known")


PRESETS: dict[str, tuple[str, Study]] = {
    "tiny": ("The default: fictitious people and a LLaVA of 0.6 M parameters, on two CPU cores.", _tiny()),
    "audit": ("The default with most attacks that mean something for the tiny model, and a longer search.", _audit()),
    "smoke": ("Learn, search, confirm, attack and report in a minute or two; its numbers mean nothing.", _smoke()),
    "any_vlm": ("Your own model, named by --model, on MLLMU-Bench and GPUs, in a folder called like it.", _any()),
    **_pair("llava_1_5_7b", "LLaVA-1.5-7B", "llava-1.5-7b-hf"),
    **_pair("idefics2_8b", "Idefics2-8B", "idefics2-8b"),
    **_pair("qwen2_5_vl_7b", "Qwen2.5-VL-7B", "Qwen2.5-VL-7B-Instruct"),
    **_pair("qwen3_vl_8b", "Qwen3-VL-8B", "Qwen3-VL-8B-Instruct"),
    **_pair("llava_onevision_7b", "LLaVA-OneVision-7B", "llava-onevision-qwen2-7b-ov-hf"),
}
