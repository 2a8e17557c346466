"""Plug-ins as text: what is written is what is set, and what cannot be set is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.attacks.adapter_scaling import AdapterScaling
from study.attacks.chain import Chain
from study.attacks.relearning import Relearning
from study.attacks.swap_back import SwapBack
from study.base_models.hf import Hf
from study.benchmarks.mllmu import Mllmu
from study.benchmarks.own import Own
from study.benchmarks.synthetic import Synthetic
from study.core.hashing import content_key
from study.core.plugins import find, known, known_spaces, search_space
from study.core.specs import adjusted, flat, links, name_in, parameters, pinned, plugin, settings_in, spelled
from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark
from study.methods.manu import MANU
from study.methods.npo import NPO
from study.methods.vkd import VKD
from study.presets import PRESETS
from study.settings import Study
from study.stages.manifest import _settings
from study.stages.plan import Plan
from study.training.schedule import Schedule


@dataclass(frozen=True)
class Everything:
    """A setting of every type."""

    number: float
    count: int
    whether: bool
    words: str
    trains: tuple[Part, ...]
    scales: tuple[float, ...]


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
    assert plugin("base_models", "hf:here") == plugin("base_models", "./here") == Hf(path=tmp_path / "here")


def test_what_lies_somewhere_is_a_path_or_has_fields_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    hub = "mllmu:hub=MLLMMU/MLLMU-Bench,revision=0e3098e"
    assert plugin("benchmarks", hub) == Mllmu(hub="MLLMMU/MLLMU-Bench", revision="0e3098e")
    assert plugin("benchmarks", "mllmu:path=here,train_split=~/x") == Mllmu(
        tmp_path / "here", train_split=Path("/somewhere/x")
    )
    assert plugin("benchmarks", "mllmu:~/x") == Mllmu(Path("/somewhere/x"))
    assert plugin("benchmarks", "mllmu:date=5/x,y") == Mllmu(tmp_path / "date=5" / "x,y")  # date is no field
    assert plugin("benchmarks", "mllmu:path") == Mllmu(tmp_path / "path")
    assert plugin("benchmarks", "own:path=here,ratios=10+20,teach_real=false") == Own(
        tmp_path / "here", ratios=(10, 20), teach_real=False
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mllmu", "mllmu needs a folder, write mllmu:PATH or mllmu:hub=OWNER/NAME,revision=COMMIT"),
        ("mllmu:path=", "'mllmu:path=': path= is not a folder"),
        ("own:/nowhere,ratios=10", "with settings the folder is named too, write own:path=/nowhere,ratios=10$"),
        ("mllmu:hub=a/b,revison=1", "unknown name 'revison' among the settings of mllmu: did you mean 'revision'"),
    ],
)
def test_a_place_that_is_not_right_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plugin("benchmarks", text)


def test_where_a_benchmark_lies_is_no_setting(tmp_path: Path) -> None:
    """The same study continues when its dataset was moved, or comes from the hub now; its fingerprint is compared."""
    study = tiny()
    model, benchmark = plugin("base_models", study.model), Benchmark("mllmu", "0" * 12, {})
    places = [Mllmu(tmp_path), Mllmu(tmp_path / "x", train_split=tmp_path), Mllmu(hub="a/b", revision="1")]
    found = [_settings(Plan(study, model, source, benchmark)) for source in places]
    assert found[0] == found[1] == found[2]
    assert found[0]["benchmark"] == {"type": "Mllmu", "train": "ft_Data"}


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


def test_a_tuple_can_be_emptied() -> None:
    assert adjusted(SwapBack(), "swap_back:parts=,head=true") == SwapBack((), head=True)
    assert adjusted(AdapterScaling(), "adapter_scaling:scales=0") == AdapterScaling((0.0,))


def test_slashes_separate_links() -> None:
    assert links("swap_back") == ("swap_back",)
    assert links("swap_back:parts=vision/nothing/pruning:share=0.2") == (
        "swap_back:parts=vision", "nothing", "pruning:share=0.2",
    )  # fmt: skip
    with pytest.raises(ValueError, match="'nothing/chain': write composed attacks with slashes, such as swap_back"):
        links("nothing/chain")


@pytest.mark.parametrize(("kind", "text", "told"), [("base_models", "hf", "hf needs a folder, write hf:PATH")])
def test_a_folder_that_is_needed_is_asked_for(kind: str, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plugin(kind, text)  # type: ignore[arg-type]


def test_what_is_set_is_pinned() -> None:
    default = adjusted(NPO(), "npo:beta=0.4,steps=7")
    assert pinned(default, "npo:beta=0.4,steps=7") == {"beta": 0.4, "steps": 7}
    assert pinned(default, "npo") == {}
    assert flat(default)["steps"] == 7


def test_composed_attacks_name_the_settings_of_each_link() -> None:
    """By its place and kind, so that two of one kind do not collide; what is set of one link is pinned for it alone."""
    text = "swap_back:head=true/relearning:steps=7/relearning"
    chain = Chain((SwapBack(head=True), adjusted(Relearning(), "relearning:steps=7"), Relearning()))
    there = parameters(chain)
    assert (there["1.swap_back.parts"], there["1.swap_back.head"]) == ("vision", True)
    assert (there["2.relearning.steps"], there["3.relearning.steps"]) == (7, 40)
    assert len(there) == len(parameters(SwapBack())) + 2 * len(parameters(Relearning()))
    assert pinned(chain, text) == {"1.swap_back.head": True, "2.relearning.steps": 7}


def test_a_plugin_without_settings_is_its_name() -> None:
    assert spelled("npo", {}) == "npo"
    assert settings_in("npo") == {}


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 9), st.booleans(), st.sampled_from(PARTS))
def test_every_digit_of_a_setting_survives_its_text(number: float, count: int, whether: bool, part: Part) -> None:
    """Of every type that a setting can have."""
    plain = Everything(0.5, 1, not whether, "text", (), ())
    wanted = Everything(number, count, whether, "other words: a=b", (part, "llm"), (number, 1.0))
    assert adjusted(plain, spelled("everything", flat(wanted))) == wanted


@given(st.sampled_from([n for n in known("methods") if n in known_spaces()]), st.integers(0, 10**6))
def test_a_proposal_can_be_written_as_a_method(name: str, seed: int) -> None:
    """What a search finds is the same method, and the same trial, when its parameters are given on the command line."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    default = find("methods", name)(**tiny().defaults.get(name, {}))
    trial = study.ask()
    proposed = search_space(name).space(trial, default)
    text = spelled(name, trial.params)
    assert content_key(adjusted(default, text)) == content_key(proposed)
    assert list(settings_in(text)) == list(trial.params)
    assert pinned(proposed, text) == trial.params


@pytest.mark.parametrize("value", ["a, b", "swap_back/pruning"])
def test_what_has_no_text_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=f"words={value}: a setting with a comma or a slash"):
        spelled("everything", {"words": value})


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


def test_a_preset_sets_a_form_of_a_method_apart() -> None:
    """What nobody sets is decided by the form, too; what neither form sets in the preset is the method's."""
    apart = {"vkd": {"schedule": Schedule(steps=7)}, "vkd:variant=features": {"schedule": Schedule(steps=9)}}
    texts = ("vkd", "vkd:variant=features", "vkd:keep_weight=3,variant=features", "vkd:keep_weight=3")
    found = tiny(methods=texts, defaults=apart).method_defaults()
    assert [method.schedule and method.schedule.steps for method in found.values()] == [7, 9, 9, 7]
    assert found["vkd"] == VKD(schedule=Schedule(steps=7))
    assert found[texts[1]] == VKD(variant="features", schedule=Schedule(steps=9))
    assert found[texts[2]] == VKD(variant="features", keep_weight=3.0, schedule=Schedule(steps=9))
    assert tiny(defaults=apart).preset_methods() == {text: found[text] for text in texts[:2]}


def test_a_form_that_a_preset_does_not_set_apart_has_what_it_sets_of_the_method() -> None:
    study = tiny(methods=("vkd:variant=features,lora_rank=2",), defaults={"vkd": {"keep_ratio": 3}})
    (found,) = study.method_defaults().values()
    assert found == VKD(variant="features", keep_ratio=3, schedule=Schedule(lora_rank=2))


def test_all_can_be_named_beside_others() -> None:
    study = tiny(methods=("all", "npo:modality=text"))
    assert study.methods[-1] == "npo:modality=text"
    assert {"npo", "vkd"} <= set(study.methods)
    assert not {"none", "retrain"} & set(study.methods)


@pytest.mark.parametrize("text", ["vkd:teacher=reference", "npo:variant=released"])
def test_an_oracle_is_not_ranked(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text} uses the reference model"):
        tiny(methods=(text,)).method_defaults()
