"""Named studies: settings that belong together. A preset of your own is a function and a line of `PRESETS`.

What a preset sets of methods and attacks stands here by the names of their fields: so the command line is read, and its
help shown, without importing any of them, and torch with them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from study.settings import Cost, Gate, Study
from study.training.schedule import Schedule


def _tiny() -> Study:
    def schedule(rate: float, steps: int, pictures: int = 6, texts: int = 1) -> Schedule:
        return Schedule(steps=steps, learning_rate=rate, pictures=pictures, texts=texts, beta2=0.98)

    def visual(steps: int) -> Schedule:
        return dataclasses.replace(schedule(2e-3, steps, pictures=12, texts=0), lessons_per_picture=2)

    def relearn(rate: float) -> Schedule:
        return Schedule(steps=40, learning_rate=rate, pictures=6, decay="constant", beta2=0.98)

    return Study(
        learn=Schedule(
            steps=540,
            learning_rate=3e-3,
            pictures=26,
            lessons_per_picture=5,
            texts=3,
            lessons_per_text=12,
            warmup=40,
            decay="cosine",
            beta2=0.98,
            weight_decay=0.01,
        ),
        defaults={
            "vkd": {"schedule": visual(300)},
            "gradient_ascent": {"schedule": schedule(5e-4, 40)},
            "gradient_difference": {"schedule": schedule(5e-4, 60)},
            "kl_minimization": {"schedule": schedule(5e-4, 60)},
            "npo": {"schedule": schedule(5e-4, 60)},
            "prompting": {},
            "preference_optimization": {"schedule": schedule(1e-3, 80)},
            "simnpo": {"schedule": schedule(1e-3, 80)},
            "rmu": {"layer": 1, "coefficient": 20.0, "schedule": schedule(1e-3, 80)},
            "undial": {"retain_weight": 1.0, "schedule": schedule(1e-3, 80)},
            "wga": {"schedule": schedule(5e-4, 60)},
            "satimp": {"forget_weight": 1.0, "schedule": schedule(1e-3, 80)},
            "mmunlearner": {"saliency_threshold": 2.0, "forget_weight": 0.5, "schedule": schedule(5e-4, 60)},
            "manu": {"share": 0.2},
            "visual_anchor": {"epsilon": 0.1, "layers": "projector", "schedule": visual(100)},
        },
        attack_grid={
            "relearning": (
                {"people": 1.0, "facts": 0.3, "trains": ("vision", "projector"), "schedule": relearn(1e-3)},
                {"people": 1.0, "facts": 0.3, "schedule": relearn(5e-4)},
                {"people": 0.5, "facts": 1.0, "schedule": relearn(5e-4)},
            )
        },
        cost=Cost(base=60, learn=75, trial=7, report=3, attack=2.5),
    )


def _tiny_attacks() -> Study:
    """The default study with an attacker of its own for every winner, and eleven further attacks that train nothing.

    They are not all that there are: `interpolation`, `adversarial_image` and `probe`, for three, are left out.
    """
    tiny = _tiny()
    return dataclasses.replace(
        tiny,
        study_dir=Path("runs/tiny_attacks"),
        attacks=(
            *tiny.attacks,
            "swap_back",
            "quantization",
            "pruning",
            "logit_lens",
            "membership_inference:metric=zlib",
            "image_transform",
            "paraphrase",
            "name_hint",
            "in_context",
            "prefill:text=This person is",
            "jailbreak",
        ),
        attack_grid={**tiny.attack_grid, "quantization": ({"format": "int4"}, {"format": "nf4"})},
        attack_trials=6,
    )


def _smoke() -> Study:
    """Every stage in minutes: a model too small to learn, a gate that lets it pass."""
    few = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=2)
    return Study(
        study_dir=Path("runs/smoke"),
        model="tiny:steps=0,width=32,layers=2",
        benchmark="synthetic:people=20,celebrities=8,views=2,strangers=8",
        methods=("vkd", "gradient_ascent"),
        trials=4,
        random_trials=3,
        confirm_seeds=1,
        learn=dataclasses.replace(few, steps=4, texts=1),
        gate=Gate(known=0.0, test=0.0, blind=1.0),
        defaults={"vkd": {"schedule": few}, "gradient_ascent": {"schedule": few}},
        attack_grid={"relearning": ({"score_at": (1, 2), "schedule": few},)},
    )


def _downloaded(name: str, folder: str) -> Study:
    """A 7B or 8B model on MLLMU-Bench with the schedules that the benchmark's authors publish (one GPU per trial)."""
    adapter = Schedule(
        steps=100, learning_rate=2e-5, pictures=4, lessons_per_picture=4, precision="bfloat16", lora_rank=16
    )
    weights = dataclasses.replace(adapter, lora_rank=0)  # of the visual module, or behind a mask
    return Study(
        study_dir=Path("runs") / name,
        model=f"hf:models/{folder}",
        benchmark="mllmu:data/MLLMU-Bench",
        forget_ratios=(5, 10, 15),
        trials=24,
        random_trials=8,
        gpus_per_trial=1,
        learn=dataclasses.replace(adapter, steps=2500),
        defaults={
            "vkd": {"schedule": weights},
            "visual_anchor": {"schedule": weights},
            "mmunlearner": {"schedule": dataclasses.replace(weights, learning_rate=1e-5)},
            "gradient_ascent": {"schedule": adapter},
            "gradient_difference": {"schedule": adapter},
            "kl_minimization": {"schedule": adapter},
            "npo": {"schedule": adapter},
            "preference_optimization": {"schedule": adapter},
            "simnpo": {"schedule": adapter},
            "rmu": {"schedule": adapter},
            "undial": {"schedule": adapter},
            "wga": {"schedule": adapter},
            "satimp": {"schedule": adapter},
        },
        attack_grid={"relearning": ({"schedule": dataclasses.replace(adapter, steps=40, decay="constant")},)},
    )


PRESETS: dict[str, tuple[str, Study]] = {
    "tiny": ("The embedded default: fictitious people, a 0.6 M parameter LLaVA, two CPU cores.", _tiny()),
    "tiny_attacks": ("The embedded default under eleven further attacks, relearning searched.", _tiny_attacks()),
    "smoke": ("Every stage in minutes, to see that an installation works; its numbers mean nothing.", _smoke()),
    "llava_1_5_7b": (
        "LLaVA-1.5-7B and MLLMU-Bench from local folders, GPUs.",
        _downloaded("llava_1_5_7b", "llava-1.5-7b-hf"),
    ),
    "idefics2_8b": (
        "Idefics2-8B and MLLMU-Bench from local folders, GPUs; schedules as for LLaVA, not searched.",
        _downloaded("idefics2_8b", "idefics2-8b"),
    ),
    "qwen2_5_vl_7b": (
        "Qwen2.5-VL-7B and MLLMU-Bench from local folders, GPUs; schedules as for LLaVA, not searched.",
        _downloaded("qwen2_5_vl_7b", "Qwen2.5-VL-7B-Instruct"),
    ),
}
