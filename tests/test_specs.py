"""Plug-ins as text: what is written is what is set, and what cannot be set is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.attacks.relearning import Relearning
from study.benchmarks.synthetic import Synthetic
from study.methods.manu import MANU
from study.methods.npo import NPO
from study.methods.vkd import VKD
from study.models.llava import Llava
from study.presets import PRESETS, Study
from study.specs import adjusted, flat, name_in, pinned, plugin
from study.training import Schedule


def test_settings_of_every_type_are_read() -> None:
    found = adjusted(VKD(), "vkd:teacher=base,keep_weight=3,keep_ratio=4,trains=vision,steps=7,learning_rate=1e-3")
    schedule = Schedule(steps=7, learning_rate=1e-3)
    assert found == VKD(teacher="base", keep_weight=3.0, keep_ratio=4, trains=("vision",), schedule=schedule)
    assert isinstance(found.keep_weight, float)
    assert adjusted(Relearning(), "relearning:score_at=5+10,trains=vision+projector") == Relearning(
        score_at=(5, 10), trains=("vision", "projector")
    )


def test_an_empty_tuple_holds_numbers() -> None:
    assert adjusted(MANU(), "manu:weights=1+0+1+1").weights == (1.0, 0.0, 1.0, 1.0)


def test_a_name_alone_changes_nothing() -> None:
    assert adjusted(NPO(beta=0.4), "npo") == NPO(beta=0.4)
    assert name_in("npo:beta=0.4") == name_in("npo") == "npo"
    assert plugin("benchmarks", "synthetic:people=30") == Synthetic(people=30)


def test_a_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert plugin("models", "llava:here") == Llava(path=tmp_path / "here")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("npo:bta=1", "unknown name 'bta' among the settings of npo: did you mean 'beta'"),
        ("npo:beta=much", "'npo:beta=much': beta=much is not a float"),
        ("npo:steps=1.5", "'npo:steps=1.5': steps=1.5 is not a int"),
        ("npo:beta=-1", "beta=-1.0"),
        ("npo:steps", "'npo:steps': steps= is not a int"),
        ("npo:steps=1,trains=vision+lm", "trains=vision+lm is not a list of values joined by plus signs"),
    ],
)
def test_what_cannot_be_set_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"beta|steps") as caught:
        adjusted(NPO(), text)
    assert told in str(caught.value)


@pytest.mark.parametrize(("kind", "text", "told"), [("models", "llava", "llava needs a folder, write llava:PATH")])
def test_a_folder_that_is_needed_is_asked_for(kind: str, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plugin(kind, text)  # type: ignore[arg-type]


def test_what_is_set_is_pinned() -> None:
    default = adjusted(NPO(), "npo:beta=0.4,steps=7")
    assert pinned(default, "npo:beta=0.4,steps=7") == {"beta": 0.4, "steps": 7}
    assert pinned(default, "npo") == {}
    assert flat(default)["steps"] == 7


# ---- in a study ----------------------------------------------------------------------------------------------------
def tiny(**fields: object) -> Study:
    from dataclasses import replace

    return replace(PRESETS["tiny"][1], **fields).resolved()  # type: ignore[arg-type]


def test_a_study_holds_a_method_in_several_settings() -> None:
    study = tiny(methods=("npo", "npo:modality=text,lora_rank=4"))
    plain, text = study.method_defaults().values()
    assert isinstance(plain, NPO)
    assert isinstance(text, NPO)
    assert (plain.modality, text.modality) == ("all", "text")
    assert text.schedule.steps == plain.schedule.steps  # the preset's, not the class's
    assert text.schedule.lora_rank == 4


def test_all_can_be_named_beside_others() -> None:
    study = tiny(methods=("all", "npo:modality=text"))
    assert study.methods[-1] == "npo:modality=text"
    assert {"npo", "vkd"} <= set(study.methods)
    assert not {"none", "retrain"} & set(study.methods)


@pytest.mark.parametrize("text", ["vkd:teacher=reference", "npo:variant=released"])
def test_an_oracle_is_not_ranked(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text} uses the reference model"):
        tiny(methods=(text,)).method_defaults()
