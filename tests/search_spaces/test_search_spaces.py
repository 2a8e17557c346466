"""Every search space proposes what can be replayed, and holds the defaults that the search starts from."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from search_spaces import as_json, ranges, refusal
from search_spaces.interpolation import PERCENTS
from study.attacks.adversarial_image import AdversarialImage
from study.attacks.interpolation import Interpolation
from study.core.hashing import content_key
from study.core.plugins import find, known, search_space
from study.core.specs import made, name_in
from study.methods.preference_optimization import PreferenceOptimization
from study.methods.rmu import RMU
from study.methods.vkd import VKD, Variant
from study.presets import PRESETS
from study.settings import REFERENCES
from study.training.schedule import Schedule

SEARCHED = [*(name for name in known("methods") if name not in REFERENCES), "vkd:variant=features"]
STARTS = [
    pytest.param(name, study.method_defaults()[name], id=f"{name} of {preset}")
    for preset, (_, study) in PRESETS.items()
    for name in study.method_defaults()
]


def start(name: str) -> Any:
    """Where the embedded study starts its search of a method."""
    tiny = PRESETS["tiny"][1]
    return replace(tiny, methods=(name,)).method_defaults()[name]


def flat(plugin: Any) -> dict[str, Any]:
    """Every field, those of fields that are dataclasses too, by its own name."""
    found: dict[str, Any] = {}
    for field in fields(plugin):
        value = getattr(plugin, field.name)
        inner = flat(value) if is_dataclass(value) else {field.name: value}
        assert not inner.keys() & found.keys(), f"{field.name} is the name of two fields"
        found |= inner
    return found


def proposals(name: str, default: Any, count: int = 12) -> list[tuple[Any, optuna.Trial]]:
    """Random proposals around a default."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    asked = [study.ask() for _ in range(count)]
    return [(space(name)(trial, default), trial) for trial in asked]


def space(name: str) -> Any:
    """The space of a method or attack as it is written on the command line."""
    return search_space(name_in(name)).space


@pytest.mark.parametrize("name", SEARCHED)
def test_a_proposal_replays_from_its_parameters(name: str) -> None:
    """After a trip through a JSON file too, and to the same key."""
    for proposed, trial in proposals(name, start(name)):
        params = json.loads(json.dumps(trial.params))
        replayed = space(name)(FixedTrial(params), start(name))
        assert replayed == proposed
        assert content_key(replayed) == content_key(proposed)


@pytest.mark.parametrize("name", SEARCHED)
def test_parameters_are_named_after_the_fields_they_set(name: str) -> None:
    for proposed, trial in proposals(name, start(name)):
        there = flat(proposed)
        assert trial.params == {field: there[field] for field in trial.params}


@pytest.mark.parametrize("name", SEARCHED)
def test_what_is_not_suggested_stays_the_default(name: str) -> None:
    default = start(name)
    for proposed, trial in proposals(name, default):
        kept = flat(default).keys() - trial.params.keys()
        assert {field: flat(proposed)[field] for field in kept} == {field: flat(default)[field] for field in kept}


@pytest.mark.parametrize("name", SEARCHED)
def test_every_suggestion_varies(name: str) -> None:
    """Nothing is searched that has a single value, and every method has something to search."""
    found = [trial.params for _, trial in proposals(name, start(name), 40)]
    assert found[0]
    for field in set().union(*found):
        assert len({params[field] for params in found if field in params}) > 1, field


@pytest.mark.parametrize(("name", "default"), STARTS)
def test_the_default_of_every_preset_lies_in_its_space(name: str, default: Any) -> None:
    assert space(name)(FixedTrial(flat(default)), default) == default


@pytest.mark.parametrize("name", SEARCHED)
def test_the_published_default_lies_in_the_space(name: str) -> None:
    """With the schedule, and the layer, of the embedded study: these are of a model, the rest is of the method."""
    default = start(name)
    published = made(find("methods", name_in(name)), {}, name)
    of_the_model = {field.name for field in fields(published)} & {"schedule", "layer"}
    published = replace(published, **{field: getattr(default, field) for field in of_the_model})
    assert space(name)(FixedTrial(flat(published)), default) == published


@pytest.mark.parametrize("name", SEARCHED)
def test_a_default_that_is_enqueued_is_proposed(name: str) -> None:
    """As the search does it: parameters that a space does not ask for do no harm."""
    default = start(name)
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    study.enqueue_trial(flat(default))
    assert space(name)(study.ask(), default) == default
    assert space(name)(study.ask(), default) != default


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("gradient_difference", {"retain_weight": [0.5, 1, 2]}),
        ("kl_minimization", {"kl_weight": [0.5, 1, 2]}),
        ("npo", {"retain_weight": [0.5, 1], "beta": [0.6, 0.9, 1.2]}),
        ("rmu", {"coefficient": [1, 10, 100]}),
        ("undial", {"gamma": [3, 10, 30]}),
    ],
)
def test_the_grid_of_open_mmunlearning_lies_in_the_space(name: str, grid: dict[str, list[float]]) -> None:
    asked = ranges(space(name), start(name))
    for field, values in grid.items():
        distribution = asked[field]
        assert isinstance(distribution, optuna.distributions.FloatDistribution)
        assert all(distribution.low <= value <= distribution.high for value in values), field


@pytest.mark.parametrize("name", SEARCHED)
def test_a_choice_of_what_is_trained_is_not_searched(name: str) -> None:
    """On what, which parts, by adapters or not, in which variant: these are other methods, named by whoever asks."""
    kept = {"modality", "variant", "form", "trains", *(field for field in flat(Schedule()) if "lora" in field)}
    assert not kept & ranges(space(name), start(name)).keys()


@pytest.mark.parametrize("variant", get_args(Variant))
def test_the_space_of_vkd_is_that_of_its_variant(variant: Any) -> None:
    """With features alone there is no loss on answers and no mask to search; what is left out stays out."""
    beside = {"forget_weight", "beta", "retain_weight", "saliency_threshold", "neurons"}
    asked = ranges(space("vkd"), VKD(variant=variant)).keys()
    assert asked & beside == (beside if variant == "described" else set())
    assert {method.variant for method, _ in proposals("vkd", VKD(variant=variant))} == {variant}
    assert not {"forget_weight", "beta"} & ranges(space("vkd"), VKD(variant=variant, forget_weight=0.0)).keys()
    adapters = VKD(variant=variant, saliency_threshold=0.0, schedule=Schedule(lora_rank=4))
    assert not {"saliency_threshold", "neurons"} & ranges(space("vkd"), adapters).keys()


def test_a_mask_is_searched_from_one_on() -> None:
    """And at the value that somebody set."""
    default = VKD(saliency_threshold=0.5)
    assert {method.saliency_threshold for method, _ in proposals("vkd", default, 40)} == {0.5, 1.0, 1.5, 2.0}
    assert min(method.saliency_threshold for method, _ in proposals("vkd", VKD(), 40)) == 1.0


def test_a_trial_from_before_vkd_had_variants_is_found_again() -> None:
    """The first of an older default study: replayed from its parameters it has the same content."""
    old = {
        "augment": 0.67, "distance": "mse", "erase_weight": 1.0, "forget_weight": 0.0, "keep_weight": 5.0,
        "layers": "all", "learning_rate": 0.002, "retain_weight": 0.0, "saliency_threshold": 0.0, "steps": 300,
        "teacher": "stranger",
    }  # fmt: skip
    replayed = space("vkd")(FixedTrial(old), start("vkd:variant=features"))
    assert content_key(replayed) == "7898f7997953"


@pytest.mark.parametrize("name", SEARCHED)
def test_ranges_are_all_that_is_asked_for_in_any_proposal(name: str) -> None:
    """Also what is asked for only after certain choices, and the same after a trip through a JSON file."""
    asked = ranges(search_space(name_in(name)).space, start(name))
    found: dict[str, Any] = {}
    for _, trial in proposals(name, start(name), 100):
        found |= trial.distributions
    assert asked == found
    stored = json.loads(json.dumps(as_json(asked)))
    assert {key: optuna.distributions.json_to_distribution(json.dumps(one)) for key, one in stored.items()} == asked


@pytest.mark.parametrize(("layer", "proposed"), [(2, {0, 1, 2}), (-3, {-3, -2, -1})])
def test_a_model_that_has_the_layer_of_the_default_has_all_that_are_proposed(layer: int, proposed: set[int]) -> None:
    found = proposals("rmu", RMU(layer=layer), 30)
    assert {method.layer for method, _ in found} == proposed


@pytest.mark.parametrize(("form", "searched"), [("idk", False), ("dpo", True)])
def test_a_temperature_is_searched_where_there_is_one(form: Any, searched: bool) -> None:
    default = PreferenceOptimization(form=form, beta=0.3)
    assert {method.beta == 0.3 for method, _ in proposals("preference_optimization", default)} == {not searched}


def test_a_one_step_schedule_can_be_searched() -> None:
    tight = VKD(schedule=Schedule(steps=1))
    for proposed, _ in proposals("vkd", tight):
        assert 1 <= proposed.schedule.steps <= 2


@pytest.mark.parametrize("name", ["vkd", "vkd:variant=features"])
def test_the_oracle_is_never_proposed(name: str) -> None:
    """A method that distils the reference cannot be ranked."""
    for _, trial in proposals(name, start(name), 1):
        choices = trial.distributions["teacher"]
        assert isinstance(choices, optuna.distributions.CategoricalDistribution)
        assert "reference" not in choices.choices
        assert {"stranger", "base"} <= set(choices.choices)


# ---- of attacks --------------------------------------------------------------------------------------------------
@given(st.integers(1, 255), st.integers(1, 255), st.integers(1, 60), st.sampled_from(["per_image", "universal"]))
def test_noise_is_searched_within_the_defaults_budget(epsilon: int, step: int, steps: int, scope: Any) -> None:
    """Whatever the default: every proposal is a possible attack, seen no more easily, no longer, and given no more."""
    default = AdversarialImage(scope, epsilon, min(step, epsilon), steps)
    assert refusal(search_space("adversarial_image").space, default, flat(default)) == ""
    for attack, trial in proposals("adversarial_image", default, 5):
        assert isinstance(attack, AdversarialImage)
        assert attack.step <= attack.epsilon <= default.epsilon
        assert attack.steps <= default.steps
        assert attack.facts <= default.facts
        assert attack.people <= default.people
        assert ("people" in trial.params) == (scope == "universal")


@pytest.mark.parametrize("percents", [(25, 50, 75, 100), (50,), (7,)])
def test_every_proposal_of_interpolation_goes_one_way_of_its_own(percents: tuple[int, ...]) -> None:
    """An attack is ranked by its last stage: none ends where the default does, but the default."""
    default = Interpolation(percents=percents)
    found = {attack.percents for attack, _ in proposals("interpolation", default, 80)}
    assert default.percents in found
    others = found - {default.percents}
    assert len(others) >= len(PERCENTS) - 1
    assert all(len(other) == 1 for other in others)
    assert (percents[-1],) not in others
