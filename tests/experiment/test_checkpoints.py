"""A learned model is loaded once, lent out, put back, and let go before another one is loaded."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from study.core.layout import StudyFolder
from study.core.records import write_record
from study.data.benchmark import Benchmark
from study.experiment import checkpoints
from study.experiment.checkpoints import borrowed, cached, evict, is_cached, save
from study.experiment.context import StudyContext
from study.experiment.records import learned_record
from study.experiment.trial_spec import Learned, Trial
from study.methods.none import NoMethod
from study.model.loading import Loading, load
from study.model.vlm import VLM
from study.training.schedule import Schedule
from tests.helpers.small import Given, same_bits, snapshot
from tests.model.test_shared_weights import MAPS, pages

VANILLA = Learned("vanilla", "base", "benchmark", None, None, Schedule(), ("llm",), 0)
OTHER = replace(VANILLA, seed=1)


@pytest.fixture
def root(tiny: VLM, tmp_path: Path) -> Iterator[Path]:
    """A study with two learned models."""
    for learned in (VANILLA, OTHER):
        place = StudyFolder(tmp_path).learned(learned.key)
        place.mkdir(parents=True)
        record = learned_record(learned, Loading(), save(tiny, place / "model"))
        write_record(place / "learned.json", record)
    yield tmp_path
    evict()


def test_a_model_is_loaded_once_and_put_back(root: Path) -> None:
    model = cached(root, VANILLA.key, "cpu")
    before = snapshot(model.vlm)
    for _ in range(2):
        with borrowed(root, VANILLA.key, "cpu") as (vlm, weights):
            assert same_bits(dict(weights), vlm.tensors())
            with torch.no_grad():
                for parameter in vlm.model.parameters():
                    parameter.add_(1.0)
            assert same_bits(dict(weights), {name: before[name] for name in weights})
        assert same_bits(snapshot(model.vlm), before)
    assert cached(root, VANILLA.key, "cpu") is model


@pytest.mark.slow
def test_one_model_is_let_go_before_the_next_is_loaded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two might not fit on a GPU."""
    first = weakref.ref(cached(root, VANILLA.key, "cpu").vlm.model)
    there: list[bool] = []

    def loads(*arguments: object, checked: bool = True, as_taught: bool = False) -> VLM:
        gc.collect()
        there.append(first() is not None)
        return load(StudyFolder(root).model_dir(OTHER.key))

    monkeypatch.setattr(checkpoints, "load_learned", loads)
    cached(root, OTHER.key, "cpu")
    assert there == [False, False]  # for the model, and for its weights
    assert not is_cached(root, VANILLA.key, "cpu")
    assert is_cached(root, OTHER.key, "cpu")


def test_a_model_that_cannot_be_put_back_is_lent_to_nobody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if memory ran out once more while it was compared."""

    def short(*_: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):  # noqa: PT012
        patch.setattr(checkpoints, "restore", short)
        with borrowed(root, VANILLA.key, "cpu") as (vlm, _), torch.no_grad():
            for parameter in vlm.model.parameters():
                parameter.zero_()
    assert not is_cached(root, VANILLA.key, "cpu")
    with borrowed(root, VANILLA.key, "cpu") as (vlm, weights):
        assert same_bits(dict(weights), vlm.tensors())


@pytest.mark.skipif(not MAPS.exists(), reason="needs Linux")
def test_the_weights_to_put_back_are_pages_of_the_file(root: Path) -> None:
    """They take no memory of a process's own, even once the model has been trained."""
    path = StudyFolder(root).model_dir(VANILLA.key) / "model.safetensors"
    size = path.stat().st_size / 1024
    with borrowed(root, VANILLA.key, "cpu") as (vlm, weights), torch.no_grad():
        for parameter in vlm.model.parameters():
            parameter.add_(1.0)
        assert sum(float(weight.sum()) for weight in weights.values())
        found = pages(path)
    assert found["Anonymous"] <= 1.1 * size  # the model's own
    assert found["Rss"] >= 1.8 * size  # and the file's


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu_is_lent_without_taking_more_of_it(root: Path) -> None:
    taken = torch.cuda.memory_allocated()
    with borrowed(root, VANILLA.key, "cuda") as (vlm, weights):
        size = sum(tensor.nbytes for tensor in vlm.tensors().values())
        assert torch.cuda.memory_allocated() - taken <= 1.2 * size
        assert all(weight.device.type == "cpu" for weight in weights.values())


def test_the_base_model_stays_in_main_memory_and_is_not_quantized(
    tiny_folder: Path, benchmark: Benchmark, tmp_path: Path
) -> None:
    """Methods and attacks take tensors from it, and a GPU may have no room for a second model."""
    context = StudyContext(tmp_path, Given(benchmark), tiny_folder, "cuda", loading=Loading(quantized="nf4"))
    base = context.request(Trial(VANILLA, NoMethod(), "visual", 10, 0), "none").base()
    assert (base.device.type, base.quantized) == ("cpu", "")


def test_tokens_are_looked_up_once_for_models_that_read_alike(root: Path) -> None:
    """Another template makes other prompts, so such a model looks its own up."""
    first = checkpoints.load_learned(root, VANILLA.key)
    ids = first.prompt_ids("Who is this?", True)
    assert checkpoints.load_learned(root, OTHER.key).prompt_ids("Who is this?", True) is ids
    template = StudyFolder(root).model_dir(OTHER.key) / "chat_template.jinja"
    template.write_text(f"Well, {template.read_text(encoding='utf-8')}", encoding="utf-8")
    assert checkpoints.load_learned(root, OTHER.key).prompt_ids("Who is this?", True) != ids


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # transformers leaves further templates open
def test_a_model_with_several_templates_is_loaded(root: Path) -> None:
    """Those beside the first are saved in a folder, of which the texts count too."""
    further = StudyFolder(root).model_dir(OTHER.key) / "additional_chat_templates" / "rag.jinja"
    further.parent.mkdir()
    found = []
    for text in ("Who?", "What?"):
        further.write_text(text, encoding="utf-8")
        found.append(checkpoints.load_learned(root, OTHER.key).prompt_ids("Who is this?", True))
    assert found[0] == found[1]
    assert found[0] is not found[1]
