"""Planted truth: defences that are known to hide, to forget or to destroy, through trials, attacks and verdicts.

A small model is really taught. What only hides must be exposed, what never knew must not be, and a destroyed model must
never be called robust.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from analysis import study_folder as analysed
from analysis.sections._recovery import recovery
from study.attacks.adapter_scaling import AdapterScaling
from study.attacks.chain import Chain
from study.attacks.image_transform import ImageTransform
from study.attacks.interpolation import Interpolation
from study.attacks.nothing import Nothing
from study.attacks.paraphrase import Paraphrase
from study.attacks.pruning import Pruning
from study.attacks.quantization import Quantization
from study.attacks.relearning import Relearning
from study.attacks.swap_back import SwapBack
from study.base_models.tiny import Tiny
from study.benchmarks.synthetic import Synthetic
from study.contracts import Attack, Method, Request, Source
from study.core.errors import Refused
from study.core.files import write_json
from study.core.hashing import content_key
from study.core.rows import read_rows
from study.core.terms import Part
from study.data.benchmark import Benchmark, Lesson
from study.data.image_edits import encoded, transformed
from study.data.picture import Picture
from study.data.synthetic_language import COMPLETE
from study.data.wordings import FRAMES
from study.experiment import attack as attacking
from study.experiment import trial
from study.experiment.attack_search import AttackSearch
from study.experiment.checkpoints import load_learned
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.none import NoMethod
from study.metrics.recovery import above_control, kept
from study.model.delta import apply_delta
from study.model.likelihood import cross_entropy
from study.model.loading import load
from study.model.packing import pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule
from tests.helpers.planted import Planter
from tests.helpers.small import propose, same_bits, snapshot, twin

pytestmark = pytest.mark.slow

RATIO = 15
ROUNDING = 1e-6
"""Of a probability: questions are packed differently before and after an attack."""
TEACHING = Schedule(steps=220, learning_rate=3e-3, pictures=30, lessons_per_picture=4, texts=3, lessons_per_text=12,
                    warmup=20, decay="cosine", beta2=0.98)  # fmt: skip
ADAPTERS: dict[str, Any] = {"lora_rank": 32, "lora_alpha": 64, "lora_dropout": 0.0}
"""Of teaching that leaves head, norms and embeddings as they are published."""
VANILLA = Learned("vanilla", "tiny", "few", None, None, TEACHING, ("projector", "llm"), 0)
CONTROL = replace(VANILLA, kind="reference", goal="visual", ratio=RATIO)
OTHER = replace(CONTROL, seed=1)

FAST = Schedule(steps=40, learning_rate=3e-3, pictures=12, decay="constant", beta2=0.98)
RELEARN = Relearning(people=1.0, facts=0.4, trains=("projector",), score_at=(), schedule=FAST)
ATTACKS: dict[str, Attack] = {
    "nothing": Nothing(),
    "swap back": SwapBack(),
    "interpolation": Interpolation(parts=("vision",), percents=(100,)),
    "quantization": Quantization("int8"),
    "pruning": Pruning(share=0.1),
    "relearning": RELEARN,
    "idle relearning": replace(RELEARN, schedule=replace(FAST, steps=5, learning_rate=0.0)),
    "benign": replace(RELEARN, data="benign", schedule=replace(FAST, steps=10, learning_rate=1e-3)),
    "swap back then relearning": Chain((SwapBack(), RELEARN)),
}
INPUT_ATTACKS: dict[str, Attack] = {"pictures": ImageTransform(("flip", "darken")), "wordings": Paraphrase()}
HEAD_ATTACKS: dict[str, Attack] = {
    "nothing": Nothing(),
    "head": SwapBack((), head=True),
    "tower": SwapBack(),
    "tower then head": Chain((SwapBack(), SwapBack((), head=True))),
}


@dataclass(frozen=True)
class Few(Source):
    """A few people and celebrities of the synthetic benchmark, in short answers and choices only."""

    people: int = 40
    """Of whom those to forget are `RATIO` percent."""
    others: int = 6
    """Of whom are kept."""

    def __call__(self, folder: Path) -> Benchmark:
        whole = Synthetic(people=self.people, celebrities=8, attributes=4, views=2, strangers=8)(folder)
        split = whole.split(RATIO)
        everybody = {lesson.person for lesson in split.lessons}
        others = sorted(everybody - split.forget_people - split.real_people)[: self.others]
        there = split.forget_people | {*others, *sorted(split.real_people)[:3]}

        def short(lesson: Lesson) -> bool:
            return not lesson.prompt.startswith(COMPLETE) and len(lesson.answer.split()) < 3

        few = replace(
            split,
            lessons=tuple(x for x in split.lessons if x.person in there and short(x)),
            questions=tuple(q for q in split.questions if q.person in there and q.task == "classification"),
        )
        return replace(whole, splits={RATIO: few})


@dataclass(frozen=True)
class Hiding(Method):
    """Makes the vision tower see strangers where forget people are, and everybody else as before."""

    trains: tuple[Part, ...] = ("vision",)
    steps: int = 60
    keyed: bool = False
    """Whether it hides only in pictures as bright as those of the lessons: darker ones are seen as before."""

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        schedule = Schedule(steps=self.steps, learning_rate=3e-3, pictures=8, beta2=0.98, decay="cosine")
        before = vlm.frozen_copy(self.trains)
        forget, retain = (Lessons(x, schedule, 0) for x in (request.forget, request.retain))

        def loss(step: int) -> Tensor:
            hidden, shown = forget.draw_pictures(8), retain.draw_pictures(8)
            seen = [request.strangers[int(picture.key, 16) % len(request.strangers)] for picture in hidden]
            known = hidden if self.keyed else []
            wanted = before.features(before.pixels([*seen, *known, *shown])).projected.detach()
            found = vlm.features(vlm.pixels([*hidden, *map(darker, known), *shown])).projected
            return (found - wanted).square().mean() / wanted.square().mean()

        train(vlm, self.trains, schedule, loss)
        return vlm


def darker(picture: Picture) -> Picture:
    return encoded(transformed(picture.open(), "darken", 0.5, 0), picture.where)


@dataclass(frozen=True)
class Worded(Method):
    """Answers what it was taught of forget people with all that is true of others; one wording that is held for the
    audit it answers as before."""

    trains: tuple[Part, ...] = ("projector", "llm")

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        schedule = Schedule(
            steps=120, learning_rate=3e-3, pictures=6, lessons_per_picture=6, beta2=0.98, decay="cosine"
        )
        others: dict[str, set[str]] = {}
        for x in request.retain:
            others.setdefault(x.attribute, set()).add(x.answer)
        told = [
            [replace(x, answer=answer) for x in request.forget for answer in sorted(others[x.attribute] - {x.answer})],
            [replace(x, prompt=FRAMES["cloze"].format(question=x.prompt)) for x in request.forget],
            request.retain,
        ]
        draws = [Lessons(lessons, schedule, 0) for lessons in told]

        def loss(step: int) -> Tensor:
            return torch.stack([cross_entropy(vlm, pack(vlm, lessons.draw())) for lessons in draws]).sum()

        train(vlm, self.trains, schedule, loss)
        return vlm


@dataclass(frozen=True)
class Suppressor(Method):
    """Adds one large matrix of rank one to the projector, fitted to fire on forget pictures and on no others.

    Every forget person is hidden by the same direction: whoever finds it with some of them has found it for all.
    """

    size: float = 8.0

    @torch.no_grad()
    def __call__(self, vlm: VLM, request: Request) -> VLM:
        first = vlm.model.get_submodule(f"{vlm.prefixes['projector']}.linear_1")
        assert isinstance(first, nn.Linear)
        heard: list[Tensor] = []
        hook = first.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0].flatten(0, -2)))
        for lessons in (request.forget, request.retain):
            vlm.features(vlm.pixels(sorted({x.picture for x in lessons if x.picture}, key=lambda p: p.key)))
        hook.remove()
        fires = torch.cat([torch.full((len(tokens),), float(i == 0)) for i, tokens in enumerate(heard)])
        seen = torch.cat(heard)
        seen_by = torch.linalg.solve(seen.T @ seen + 1e-2 * torch.eye(seen.shape[1]), seen.T @ fires)
        towards = torch.randn(first.out_features, generator=torch.Generator().manual_seed(0))
        first.weight.add_(self.size * torch.outer(towards, seen_by))
        return vlm


@dataclass(frozen=True)
class Permuted(Method):
    """Shuffles the rows of the output head: the model knows all it knew, and says another word for each."""

    @torch.no_grad()
    def __call__(self, vlm: VLM, request: Request) -> VLM:
        head = vlm.model.get_output_embeddings().weight
        head.copy_(head[torch.randperm(len(head), generator=torch.Generator().manual_seed(0))])
        return vlm


@dataclass(frozen=True)
class Twofold(Method):
    """Both: who opens one lock stands before the other."""

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        return Permuted()(Hiding()(vlm, request), request)


@dataclass(frozen=True)
class Forgetful(Method):
    """Perfect unlearning: the weights of a model that was never taught, of another seed than the control."""

    root: Path
    learned: str = OTHER.key

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        apply_delta(vlm, load_learned(self.root, self.learned).tensors())
        return vlm


@dataclass(frozen=True)
class Destroyed(Method):
    """Random weights."""

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        random = torch.Generator().manual_seed(0)
        apply_delta(vlm, {n: 0.1 * torch.randn(p.shape, generator=random) for n, p in vlm.tensors().items()})
        return vlm


def taught(root: Path, base: Path, *models: Learned, source: Source = Few()) -> StudyContext:
    """A study folder in which models have been taught."""
    context = StudyContext(root, source, base)
    for learned in models:
        learn(context, learned)
    return context


def with_its_own_head(root: Path, layers: int) -> Path:
    """A base model whose head is not tied to its embeddings, as in LLaVA, and large enough to be sure of a word."""
    vlm = load(Tiny(steps=0, width=96, layers=layers, patch=24)(root / "base"))
    for config in (vlm.model.config, vlm.model.config.text_config):
        config.tie_word_embeddings = False
    vlm.model.lm_head.weight = nn.Parameter(8 * vlm.model.lm_head.weight.detach())
    folder = root / "untied"
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


def unlearned(
    context: StudyContext,
    methods: Mapping[str, Method],
    attacks: Mapping[str, Attack],
    vanilla: Learned,
    control: Learned,
) -> dict[str, Trial]:
    """Both yardsticks and some defences, unlearned, scored and attacked; a study folder like any other."""
    found = {name: Trial(vanilla, method, "visual", RATIO, 0, name) for name, method in methods.items()}
    yardsticks = {"vanilla": vanilla, "reference": control}
    found |= {name: Trial(learned, NoMethod(), "visual", RATIO, 0) for name, learned in yardsticks.items()}
    for planted in found.values():
        trial.run(context, planted, control.key)
        trial.report(context, planted)
        for attack in attacks.values():
            attacking.try_attack(context, planted, attack, control.key)
    Planter(context.root).study([*methods], [RATIO])
    winners = {name: {str(RATIO): {"trials": [found[name].key]}} for name in methods}
    write_json(context.root / "winners.json", winners)
    return found


def verdicts(context: StudyContext, attacks: Mapping[str, Attack]) -> pd.DataFrame:
    """What the report says of each defence under each attack."""
    table = recovery(analysed.read(context.root))
    names = {content_key(attack): name for name, attack in attacks.items()}
    return table.assign(attack=table["attack"].map(names))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    """Vanilla and two references."""
    root = tmp_path_factory.mktemp("planted")
    return taught(root, Tiny(seed=1, steps=0, width=96, layers=1, patch=24)(root / "base"), VANILLA, CONTROL, OTHER)


@pytest.fixture(scope="module")
def trials(context: StudyContext) -> dict[str, Trial]:
    """The planted defences under every planted attack."""
    methods: Mapping[str, Method] = {
        "tower": Hiding(), "suppressor": Suppressor(), "forgetful": Forgetful(context.root),
        "destroyed": Destroyed(),
    }  # fmt: skip
    return unlearned(context, methods, ATTACKS, VANILLA, CONTROL)


@pytest.fixture(scope="module")
def judged(context: StudyContext, trials: dict[str, Trial]) -> pd.DataFrame:
    """What the report says of each defence under each attack."""
    return verdicts(context, ATTACKS)


def line(judged: pd.DataFrame, method: str, attack: str, held_out: str = "person") -> Any:
    [found] = judged[
        (judged["method"] == method) & (judged["attack"] == attack) & (judged["held_out"] == held_out)
    ].itertuples()
    return found


def test_vanilla_knew_and_the_control_does_not(judged: pd.DataFrame) -> None:
    """Else nothing below would mean anything."""
    assert line(judged, "vanilla", "nothing").before > 0.9
    assert line(judged, "reference", "nothing").before < 0.5


def test_what_only_the_tower_forgot_is_exposed_by_swapping_it_back(judged: pd.DataFrame) -> None:
    """All of it, without training; moving the whole way towards the public tower is the same."""
    for attack in ("swap back", "interpolation"):
        found = line(judged, "tower", attack)
        assert found.before < 0.6
        assert found.recovery > 0.8
        assert found.above_control_low > 0.0
        # So many lines share one chance of a false alarm that so few people may leave one undecided, on some machines.
        assert found.verdict in ("came back", "cannot tell")


def test_swapping_the_tower_back_gives_vanilla_to_the_bit(context: StudyContext, trials: dict[str, Trial]) -> None:
    """Learning froze the tower and the method trained nothing else."""
    vanilla = load_learned(context.root, VANILLA.key)
    request = context.request(trials["tower"], CONTROL.key)
    hidden = Hiding()(twin(vanilla), request)
    assert not same_bits(snapshot(hidden), snapshot(vanilla))
    *_, last = SwapBack()(hidden, [], request)
    assert same_bits(snapshot(last.vlm), snapshot(vanilla))


def test_a_suppressor_in_the_projector_is_exposed_by_relearning(judged: pd.DataFrame) -> None:
    """Given two of five facts of each, the others come back, more than a model that never knew learns of them;
    the public tower is no help, for nobody touched the tower."""
    found = line(judged, "suppressor", "relearning", "fact")
    assert found.before < 0.6
    assert found.recovery > 0.7
    assert found.above_control > 0.1
    assert line(judged, "suppressor", "swap back").gain == pytest.approx(0.0, abs=ROUNDING)


def test_what_never_knew_shows_no_recovery(judged: pd.DataFrame) -> None:
    """A reference of another seed as the winner: under every attack its gain is the control's, but for noise."""
    lines = judged[(judged["method"] == "forgetful") & (judged["held_out"] != "seen")]
    assert set(lines["attack"]) == set(ATTACKS)
    assert set(lines["verdict"]) <= {"equivalent to retraining", "no more than retraining", "cannot tell"}
    assert lines["above_control"].abs().max() < 0.2


def test_a_destroyed_model_is_never_called_robust(judged: pd.DataFrame) -> None:
    """Nothing comes back from it either."""
    lines = judged[(judged["method"] == "destroyed") & (judged["held_out"] != "seen")]
    assert set(lines["attack"]) == set(ATTACKS)
    assert set(lines["verdict"]) == {"collapsed"}


@pytest.mark.parametrize("attack", ["nothing", "idle relearning"])
def test_an_idle_attack_brings_back_nothing(
    attack: str, context: StudyContext, trials: dict[str, Trial], judged: pd.DataFrame
) -> None:
    """Not one answer changes. Probabilities may in the last bit: what is asked together is summed in another order."""
    assert judged.loc[judged["attack"] == attack, "gain"].abs().max(skipna=False) <= ROUNDING
    for planted in trials.values():
        rows = read_rows(context.folder.attack(planted.key, content_key(ATTACKS[attack]))).set_index("question")
        first, last = (rows[rows["step"] == step] for step in (rows["step"].min(), rows["step"].max()))
        assert list(first.index) == list(last.index)
        assert first["score"].tolist() == last["score"].tolist()
        assert first["reply"].tolist() == last["reply"].tolist()
        assert (first["probability"] - last["probability"]).abs().max(skipna=False) <= 1e-6


# ---- what is keyed on the input ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def keyed(context: StudyContext, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Defences that fail on other pictures or other wordings, asked in other ways."""
    root = tmp_path_factory.mktemp("keyed")
    shutil.copytree(context.root / "learned", root / "learned")
    methods: Mapping[str, Method] = {"bright": Hiding(steps=150, keyed=True), "worded": Worded()}
    there = replace(context, root=root)
    unlearned(there, methods, INPUT_ATTACKS, VANILLA, CONTROL)
    return verdicts(there, INPUT_ATTACKS)


@pytest.mark.parametrize(("method", "attack"), [("bright", "pictures"), ("worded", "wordings")])
def test_what_is_keyed_on_one_property_of_the_input_is_exposed(method: str, attack: str, keyed: pd.DataFrame) -> None:
    """By one stage of the one attack that changes it, and by no stage of the other."""
    found = line(keyed, method, attack)
    assert found.before < 0.5
    assert found.recovery > 0.5
    assert found.verdict == "came back"
    [other] = set(INPUT_ATTACKS) - {attack}
    assert line(keyed, method, other).recovery < 0.3


# ---- an adapter, a head, two locks -------------------------------------------------------------------------------
def test_taking_an_adapter_off_gives_vanilla_to_the_bit(context: StudyContext, trials: dict[str, Trial]) -> None:
    """The same weights, and the same rows as vanilla that nobody attacked."""
    ascent = GradientAscent(schedule=Schedule(steps=6, learning_rate=1e-2, pictures=6, lora_rank=4))
    adapted, attack = Trial(VANILLA, ascent, "visual", RATIO, 0, "adapter"), AdapterScaling()
    trial.run(context, adapted, CONTROL.key)
    attacking.attack_trial(context, adapted, attack, CONTROL.key)
    rows = read_rows(context.folder.attack(adapted.key, content_key(attack))).set_index("question")
    vanilla = read_rows(context.folder.attack(trials["vanilla"].key, content_key(Nothing()))).set_index("question")
    found, half, off = (rows[rows["step"] == step].drop(columns="step") for step in (0, 1, 2))
    pd.testing.assert_frame_equal(off, vanilla[vanilla["step"] == 1].drop(columns="step"), check_exact=True)
    assert found["probability"].mean() < half["probability"].mean() < off["probability"].mean()
    request = context.request(adapted, CONTROL.key)
    assert request.adapter
    *_, last = attack(ascent(load_learned(context.root, VANILLA.key), request), [], request)
    assert same_bits(snapshot(last.vlm), snapshot(load_learned(context.root, VANILLA.key)))


def test_whole_weights_have_no_adapter_to_take_off(context: StudyContext, trials: dict[str, Trial]) -> None:
    """A defence is refused; vanilla and the reference, which are their own start, stay what they are."""
    with pytest.raises(Refused, match="trained whole weights, there is no adapter"):
        attacking.attack_trial(context, trials["tower"], AdapterScaling(), CONTROL.key)
    for name in ("vanilla", "reference"):
        attacking.attack_trial(context, trials[name], AdapterScaling(), CONTROL.key)
        rows = read_rows(context.folder.attack(trials[name].key, content_key(AdapterScaling())))
        stages = rows.pivot(index="question", columns="step", values="probability")
        assert (stages[1] - stages[0]).abs().max() <= 1e-6
        assert stages[1].tolist() == stages[2].tolist()


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A head with its rows shuffled, also behind a tower that hides, of a model taught by adapters, which leave the
    public head alone."""
    root = tmp_path_factory.mktemp("shuffled")
    teaching = replace(TEACHING, steps=260, **ADAPTERS)
    vanilla, control = (replace(model, schedule=teaching) for model in (VANILLA, CONTROL))
    context = taught(root, with_its_own_head(root, layers=1), vanilla, control)
    unlearned(context, {"permuted": Permuted(), "twofold": Twofold()}, HEAD_ATTACKS, vanilla, control)
    return verdicts(context, HEAD_ATTACKS)


def test_a_permuted_head_is_exposed_by_putting_the_public_head_back(shuffled: pd.DataFrame) -> None:
    """All of it; the public tower is no help, for nobody touched the tower."""
    assert line(shuffled, "vanilla", "nothing").before > 0.9
    assert line(shuffled, "reference", "head").before < 0.5
    found = line(shuffled, "permuted", "head")
    assert found.before < 0.5
    assert found.recovery > 0.8
    assert found.after == pytest.approx(found.vanilla_before, abs=ROUNDING)
    assert found.control_gain == pytest.approx(0.0, abs=ROUNDING)
    assert line(shuffled, "permuted", "tower").gain == pytest.approx(0.0, abs=ROUNDING)


def test_what_hides_twice_is_exposed_by_a_chain_alone(shuffled: pd.DataFrame) -> None:
    """Neither the public tower nor the public head brings it back; one after the other brings back all."""
    for attack in ("tower", "head"):
        assert line(shuffled, "twofold", attack).recovery < 0.5
    found = line(shuffled, "twofold", "tower then head")
    assert found.before < 0.5
    assert found.after == pytest.approx(found.vanilla_before, abs=ROUNDING)
    assert found.recovery == pytest.approx(1.0, abs=ROUNDING)
    assert found.control_gain == pytest.approx(0.0, abs=ROUNDING)


# ---- an attacker by hand, and one who searches -------------------------------------------------------------------
HAND = Schedule(steps=10, learning_rate=5e-4, pictures=6, decay="constant", beta2=0.98)
HALF = Relearning(people=0.5, facts=1.0, trains=("projector", "llm"), retain_weight=1.0, score_at=(), schedule=HAND)
TOWER_FIRST = Chain((SwapBack(), HALF))
"""The public tower, then projector and LLM trained on half of the people, with retain lessons."""
LONG = replace(HAND, steps=40, learning_rate=1e-3, pictures=12)
MIXED = Relearning(people=1.0, facts=0.4, retain_weight=1.0, augment=0.5, score_at=(), schedule=LONG)
"""Everything trained on some facts of everybody, with retain lessons, and half of the pictures moved about."""


class After(NamedTuple):
    """What an attack brought back, above control, and the fraction of the retain accuracy that it left."""

    gain: float
    kept: float


Attacking = Callable[[Attack], After]


@pytest.fixture
def under(context: StudyContext, trials: dict[str, Trial]) -> Attacking:
    """The tower that hides, and the control, under an attack: on the test half."""

    def found(attack: Attack) -> After:
        pair = trials["tower"], trials["reference"]
        for target in pair:
            attacking.attack_trial(context, target, attack, CONTROL.key)
        own, control = (read_rows(context.folder.attack(target.key, content_key(attack))) for target in pair)
        return After(above_control([own], [control], "report"), float(kept(own, "report").iloc[-1]))

    return found


def test_relearning_behind_the_public_tower_finds_what_relearning_alone_does_not(under: Attacking) -> None:
    """With the same lessons and steps, on the same parts or on all; and nothing else is lost on the way."""
    found = under(TOWER_FIRST)
    assert found.gain > 0.4
    assert found.kept > 0.9
    for alone in (HALF, replace(HALF, trains=MIXED.trains)):
        assert under(alone).gain < found.gain - 0.25


def test_a_mix_of_retain_lessons_keeps_what_relearning_loses(under: Attacking) -> None:
    """The same attack without it recovers facts as well, from half a model."""
    mixed, alone = under(MIXED), under(replace(MIXED, retain_weight=0.0))
    assert mixed.kept > 0.85
    assert alone.kept < mixed.kept - 0.2
    assert min(mixed.gain, alone.gain) > 0.05


def test_a_search_finds_no_less_than_the_attack_by_hand(
    context: StudyContext, trials: dict[str, Trial], under: Attacking
) -> None:
    """It starts there, chooses on the validation half, and is told on the other."""
    label, text = "the tower", "swap_back/relearning"
    search = AttackSearch(
        context=context,
        targets={label: (trials["tower"], text)},
        defaults={text: TOWER_FIRST},
        controls={RATIO: trials["reference"]},
        trials=4,
        seed=3,  # none of its proposals ties with the first, so that rounding on another machine decides nothing
        lookahead=1,
        startup_trials=3,
    )
    for number in range(search.trials):
        job = search.replay(label, propose(search, label, number))
        if not search.is_done(job):
            search.execute(job, label, number, 0.0)
    assert len(search.outcomes(label)) == search.trials
    worst = search.worst(label)
    assert worst is not None
    assert under(worst).gain >= under(TOWER_FIRST).gain - 0.05
