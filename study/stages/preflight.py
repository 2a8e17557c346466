"""A study made concrete before any work: plug-ins found, data read, settings compared with those on disk."""

from __future__ import annotations

from collections.abc import Iterator, Set
from itertools import chain
from pathlib import Path

from study.benchmarks._shared.defects import strict_data
from study.contracts import Attack, BaseModel, Source, without_models
from study.core.errors import Refused
from study.core.files import check_writable
from study.core.garbage import seldom_collected
from study.core.layout import StudyFolder
from study.core.plugins import known_spaces, name_of, search_space
from study.core.specs import flat, links, parameters, pinned, plugin
from study.core.terms import HALVES, MODALITIES, ROLES, Half, Modality, Role
from study.data.benchmark import Benchmark, Split
from study.data.halves import prepared
from study.data.official_protocol import OfficialProtocol
from study.data.special_tokens import special_tokens_in, unknown_words_in
from study.experiment.attack import holds_out
from study.experiment.sequential import split_requests
from study.settings import Study
from study.stages.brought import brought_models
from study.stages.disk import check_disk
from study.stages.manifest import check_settings, has_begun
from study.stages.plan import Plan
from study.stages.strict_code import check_code
from study.stages.supported import check_attributes, supported_defaults, unsupported
from study.stages.warm_start import warm_start

MOST_TOLD = 20
"""Defects that are listed: as many as a terminal shows at once."""


@seldom_collected()
def validate_study(study: Study, data: Path) -> Plan:
    """Find everything that can be wrong before a model is loaded; `data` is the folder of generated benchmarks.

    Raises `Refused` or `ValueError` that names the value and the remedy.
    """
    _check_folder(StudyFolder(study.study_dir.absolute()))
    model, source = plugin("base_models", study.model), plugin("benchmarks", study.benchmark)
    study.attackers()
    study.search_attack()
    _check_released(study, source)
    _check_spaces(study)
    _check_quantized(study, model)
    if model.path is not None and not model.hub:
        model = model.at(model(data))  # before a benchmark is read, which takes longer
    with strict_data(study.strict_data):
        benchmark = prepared(source(data), study.forget_attributes)
    for ratio in study.forget_ratios:
        _check_questions(benchmark.split(ratio))
        split_requests(benchmark.split(ratio), study.goal, study.requests)
        _check_lessons(benchmark.split(ratio), study)
        check_attributes(benchmark.split(ratio), study)
        _check_search_attack(benchmark.split(ratio), study)
    if model.hub:
        model = model.at(model(data))  # downloaded once all else is right
    _check_texts(benchmark, model)
    defaults, changed = supported_defaults(study, benchmark)
    held = StudyFolder(study.study_dir.absolute()).settings
    warm = warm_start(study, defaults, unsupported(defaults, benchmark), held)
    brought = brought_models(study, model, data)
    plan = Plan(study, model, source, benchmark, brought, warm, defaults, changed)
    check_settings(plan)
    if study.strict_code:
        check_code(plan.folder)
    check_disk(plan.study, plan.model, plan.benchmark, plan.space)
    if not (source.generated or has_begun(plan.folder)):  # else they were decoded before
        _check_pictures(benchmark)
    return plan


def _check_pictures(benchmark: Benchmark) -> None:
    """Every picture must decode; those that do not are told together."""
    damaged: list[str] = []
    for picture in benchmark.pictures():
        try:
            picture.open().close()
        except ValueError as error:
            damaged.append(str(error))
    if damaged:
        raise ValueError(
            "\n- ".join([f"{len(damaged)} pictures do not decode:"] * (len(damaged) > 1) + sorted(damaged))
        )


def _check_texts(benchmark: Benchmark, model: BaseModel) -> None:
    """No text may hold what the tokenizer of the model reads as something else than this text."""
    for what, defects in (
        ("special tokens of the model", special_tokens_in(benchmark, model.special_tokens)),
        ("words that the model cannot write", unknown_words_in(benchmark, model.unknown)),
    ):
        if defects:
            few = "".join(f"\n- {defect}" for defect in defects[:MOST_TOLD])
            rest = f"\n- and {len(defects) - MOST_TOLD} more" if len(defects) > MOST_TOLD else ""
            raise Refused(f"{len(defects)} texts of the benchmark hold {what}:{few}{rest}")


def _check_released(study: Study, source: Source) -> None:
    """Not every benchmark has a protocol of its authors, and none knows of requests for single attributes."""
    if study.released and not isinstance(source, OfficialProtocol):
        raise Refused(f"benchmark {study.benchmark} has no official protocol; leave --released out")
    if study.released and study.forget_attributes:
        raise Refused("--released with --forget-attributes: official protocols ask about whole people; leave one out")


def _check_spaces(study: Study) -> None:
    """What a method is set to must be something its search space could propose."""
    from search_spaces import ranges, refusal  # with Optuna, which help and refused settings do without

    for text, default in {**study.method_defaults(), **study.attack_defaults()}.items():
        name = name_of(default)
        try:
            ranges(search_space(name).space, default)
        except ValueError as error:
            raise Refused(
                f"{text}: search_spaces/{name}.py asks for what cannot be searched around this default ({error}); "
                "change the default or the space"
            ) from error
        if reason := refusal(search_space(name).space, default, parameters(default)):
            raise Refused(f"{text}: outside search_spaces/{name}.py ({reason}); choose a value inside, or widen it")


def _check_quantized(study: Study, model: BaseModel) -> None:
    """A quantized LLM is frozen: no method and no attack may change it."""
    if not model.quantized:
        return
    if study.sharded:
        raise Refused(
            f"sharded with quantized={model.quantized} of the base model: quantized weights cannot be sharded; leave "
            "one of them out"
        )
    wrong = list(dict.fromkeys(_changing_llm(study)))
    if wrong:
        raise Refused(
            f"quantized={model.quantized} of the base model freezes its llm, which would be changed by "
            f"{', '.join(wrong)}; set these, as in relearning:trains=vision+projector, leave them out, or leave "
            "quantized out"
        )


def _changing_llm(study: Study) -> Iterator[str]:
    """The methods and attacks of a study that may write to the LLM, each with what to set so that it does not."""
    methods = ((f"method {text}", default) for text, default in study.method_defaults().items())
    suite = ((f"attack {link}", a) for text in study.attacks for link in links(text) for a in study.attacks_of(link))
    searched = links(study.robustness) if study.robustness else ()
    cheap = ((f"robustness {study.robustness}", study.attacks_of(link)[0]) for link in searched)
    for told, tried in chain(methods, suite, cheap):
        if "llm" in tried.changes:
            yield f"{told} (set {_sparing_llm(tried)})"
    for text in study.searched_attacks if study.attack_trials else ():
        for link in links(text):
            default = study.attacks_of(link)[0]
            if wrong := [proposed for proposed in _varied(default, link) if "llm" in proposed.changes]:
                yield f"searched attack {link} (set {_sparing_llm(wrong[-1])})"


def _varied(default: Attack, text: str) -> Iterator[Attack]:
    """An attack and, if it can be searched, what it is with each other choice of one parameter."""
    from search_spaces import variants  # with Optuna, which help and refused settings do without

    yield default
    if name_of(default) in known_spaces():
        yield from variants(search_space(name_of(default)).space, default, fixed=pinned(default, text))


def _sparing_llm(tried: object) -> str:
    """The setting with which a method or an attack leaves the LLM alone."""
    settings = flat(tried)
    name = "trains" if "trains" in settings else "parts"
    parts = settings[name]
    if settings.get("head") and "llm" not in parts:
        return "head=false"
    return f"{name}={'+'.join(part for part in parts if part != 'llm') or 'vision'}"


def _check_lessons(split: Split, study: Study) -> None:
    """A method that trains on one modality needs something to forget in it."""
    request = without_models(split, study.goal)
    for text, default in study.method_defaults().items():
        try:
            request.only(default.modality)
        except Refused as error:
            raise Refused(f"{text}: {error}") from error


def _check_search_attack(split: Split, study: Study) -> None:
    """Recovery can be an objective only where the attacker is not given everything."""
    attacker, asked = study.search_attack(), f"robustness={study.robustness!r} at forget ratio {split.ratio}"
    try:
        fits = attacker is None or holds_out(attacker, without_models(split, study.goal, study.seed))
    except Refused as error:
        raise Refused(f"{asked}: {error}") from error
    if not fits:
        raise Refused(
            f"{asked}: the attacker is given every fact that one half of the questions asks for; hold out some"
        )


def _check_questions(split: Split) -> None:
    """Every group that is measured needs a multiple-choice question in the validation half and one in the test half."""
    there = {(q.role, q.modality, q.half) for q in split.questions if q.task == "classification"}
    for role in ROLES:
        for modality in MODALITIES:
            if _may_lack(split, role, modality, there):
                continue
            for half in HALVES:
                if (role, modality, half) not in there:
                    raise Refused(
                        f"forget ratio {split.ratio}: no {modality} classification question about {role} people falls "
                        f"into the {'validation' if half == 'select' else 'test'} half; each person needs at least two "
                        "in every modality"
                    )


def _may_lack(split: Split, role: Role, modality: Modality, there: Set[tuple[Role, Modality, Half]]) -> bool:
    """Whether a group may be empty: nothing is spared where all goes; an attribute may be asked of pictures only."""
    if not split.forget_attributes or role == "spared":
        return role == "spared"
    return role in ("forget", "test") and modality == "text" and ("spared", "text", "select") in there


def _check_folder(folder: StudyFolder) -> None:
    """Raise `Refused` for a folder that cannot be written, or in which a run would remove what is somebody else's."""
    root = folder.root
    check_writable(root, "study folder", "--study-dir")
    theirs = [path.name for path in (folder.failures, folder.ray) if path.exists()]
    if theirs and not (folder.settings.exists() or folder.lock.exists()):
        raise Refused(
            f"study folder {root}: it holds no study, and a run would empty its {' and '.join(theirs)}; choose another "
            "--study-dir"
        )
