"""Requests one after another: who is whose, what is still known at each, and what a sequence leaves on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.contracts import Method, Request
from study.core.files import read_json
from study.core.rows import read_rows
from study.core.terms import Goal
from study.data.benchmark import Benchmark, Lesson, Split
from study.data.picture import Picture
from study.experiment import checkpoints
from study.experiment.context import StudyContext
from study.experiment.sequential import run_sequential, split_requests
from study.experiment.trial_spec import Learned, Trial
from study.model.vlm import VLM
from study.training.loop import Diverged
from study.training.schedule import Schedule
from tests.helpers.small import Given

PEOPLE = tuple(f"person {i}" for i in range(7))


def split(forgotten: int) -> Split:
    picture = Picture(b"", "")
    lessons = tuple(Lesson(p, "Who?", p, shown) for p in PEOPLE for shown in (picture, None))
    return Split(15, frozenset(PEOPLE[:forgotten]), lessons, ())


@given(st.integers(1, 7), st.integers(1, 7), st.sampled_from(["visual", "full"]))
def test_requests_share_out_the_people_and_the_forgotten_are_gone(forgotten: int, requests: int, goal: Goal) -> None:
    whole = split(forgotten)
    if requests > forgotten:
        with pytest.raises(ValueError, match=f"requests={requests}: only {forgotten} people"):
            split_requests(whole, goal, requests)
        return
    parts = split_requests(whole, goal, requests)
    assert len(parts) == requests
    people = [person for part in parts for person in part.forget_people]
    assert sorted(people) == sorted(whole.forget_people)  # each once
    sizes = [len(part.forget_people) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    gone: set[str] = set()
    for part in parts:
        left = [x for x in whole.lessons if x.person not in gone or (goal == "visual" and x.picture is None)]
        assert part.lessons == tuple(left)
        gone |= part.forget_people
    assert split_requests(whole, goal, requests) == parts


def test_one_request_is_the_whole() -> None:
    assert split_requests(split(3), "visual", 1) == [split(3)]


@dataclass(frozen=True)
class Scale(Method):
    """Shrinks the projector a little at every request and notes what it was asked."""

    diverges_at: int = 0
    asked: list[Request] = field(default_factory=list, compare=False)

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        self.asked.append(request)
        if len(self.asked) == self.diverges_at:
            raise Diverged(3, "the loss is nan")
        for parameter in vlm.trainable(("projector",)).values():
            parameter.data.mul_(0.5)
        return vlm


@pytest.fixture
def context(
    tiny: VLM, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StudyContext:
    """A context in which every learned model is the same untrained one."""
    held = checkpoints.CachedModel(tiny, {name: tensor.clone() for name, tensor in tiny.tensors().items()})
    monkeypatch.setattr(checkpoints, "cached", lambda root, key, device: held)
    monkeypatch.setattr(StudyContext, "benchmark", benchmark)
    return StudyContext(tmp_path, Given(benchmark), tiny_folder)


def trial(method: Scale) -> Trial:
    vanilla = Learned("vanilla", "base", "benchmark", None, None, Schedule(), ("llm",), 0)
    return Trial(vanilla, method, "visual", 15, 0)


def test_a_sequence_is_scored_before_it_and_after_each_request(context: StudyContext, tiny: VLM) -> None:
    """Each request meets the model that the one before it left, with a saliency cache of its own."""
    scale = Scale()
    before = {n: t.clone() for n, t in tiny.tensors().items()}
    run_sequential(context, trial(scale), 3, "reference")
    path = context.folder.sequence(trial(scale).key, 3)
    rows = read_rows(path)
    assert sorted(set(rows["step"])) == [0, 1, 2, 3]
    assert set(rows["half"]) == {"report"}
    assert {"forget", "retain", "real"} <= set(rows["role"])
    first, last = (rows[rows["step"] == step].set_index("question")["probability"] for step in (0, 3))
    assert not first.equals(last)
    record = read_json(path.with_suffix(".json"))
    assert record["diverged"] == ""
    assert [sorted(request.split.forget_people) for request in scale.asked] == record["people"]
    assert len({request.cache for request in scale.asked}) == 3
    now = tiny.tensors()
    assert all(bool((now[name] == tensor).all()) for name, tensor in before.items())  # and the weights are back


def test_a_request_that_diverges_ends_the_sequence_and_says_so(context: StudyContext) -> None:
    scale = Scale(diverges_at=2)
    run_sequential(context, trial(scale), 3, "reference")
    path = context.folder.sequence(trial(scale).key, 3)
    assert read_json(path.with_suffix(".json"))["diverged"] == "request 2: diverged at step 3: the loss is nan"
    assert sorted(set(read_rows(path)["step"])) == [0, 1]
