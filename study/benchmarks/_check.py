"""Facts about a dataset before it is studied: counts, whether it can be memorized, and how precise results can be.

Pure functions of a benchmark; no model is needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from study.core.terms import HALVES, MODALITIES, ROLES, TASKS
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.facts import facts, plain, states

# Rules of thumb of the hints, chosen by trial on the synthetic dataset; a study refuses nothing because of them.
FEW_LESSONS = 8
"""Lessons of a person: two facts in four wordings, say. The default study has 584."""
FEW_PICTURES = 3
"""Pictures of a person that are taught: from fewer a model learns the files."""
MANY_WORDS = 12
"""Words of an answer: longer ones are hard to reproduce word for word."""
GUESSABLE = 0.15
"""By how much frequency alone may beat guessing, in accuracy: as much as the noise of one with nine people."""

Table = list[list[object]]


def taught(benchmark: Benchmark) -> Table:
    """What is taught, one row of name and number each; vanilla is taught the lessons of the smallest ratio's split."""
    lessons = _lessons(benchmark)
    pictures = {lesson.picture for lesson in lessons if lesson.picture}
    return [
        ["people taught", len({lesson.person for lesson in lessons})],
        ["people asked about", len({q.person for split in benchmark.splits.values() for q in split.questions})],
        ["lessons with a picture", sum(lesson.picture is not None for lesson in lessons)],
        ["lessons in text", sum(lesson.picture is None for lesson in lessons)],
        ["pictures taught", len(pictures)],
        ["pictures in all", len(benchmark.pictures())],
        ["pictures of strangers", len(benchmark.strangers)],
        ["lessons without attribute", sum(not lesson.attribute for lesson in lessons)],
    ]


def asked(benchmark: Benchmark) -> Table:
    """What is asked: role, modality, task, and for each ratio people: questions to select by + questions to report."""
    found: Table = []
    for role in ROLES:
        for modality in MODALITIES:
            for task in TASKS:
                kind = (role, modality, task)
                some = [
                    [q for q in split.questions if (q.role, q.modality, q.task) == kind]
                    for split in benchmark.splits.values()
                ]
                if any(some):
                    found.append([*kind, *map(_counted, some)])
    return found


@dataclass(frozen=True)
class Memorability:
    """Of one split, what decides whether its forget people can be memorized, and whether forgetting can be seen.

    `lessons` and `pictures` are medians over the forget people, `words` those of answers by task. Shares are of the
    choices about forget people (roles forget and test), in [0, 1]: `stated` of those whose right answer a lesson about
    that person states, `guessed` the accuracy of `most_frequent`, `chance` that of guessing.
    """

    people: int
    lessons: float
    pictures: float
    stated: float
    guessed: float
    chance: float
    words: dict[str, float]
    interval: tuple[float, float]

    def rows(self) -> list[tuple[str, str]]:
        """The numbers with their names; shares and intervals in percent."""
        independent, together = (f"+/- {100 * half:.0f} points" for half in self.interval)
        return [
            ("forget people", f"{self.people}"),
            ("lessons per person (median)", f"{self.lessons:g}"),
            ("taught pictures per person (median)", f"{self.pictures:g}"),
            ("multiple-choice questions whose answer was taught", f"{self.stated:.0%}"),
            ("accuracy of the option most often right for others", f"{self.guessed:.0%}"),
            ("accuracy of guessing", f"{self.chance:.0%}"),
            *((f"words of an answer, {task} (median)", f"{words:g}") for task, words in self.words.items()),
            ("95 % interval of an accuracy of 50 %, answers independent", independent),
            ("95 % interval if answers about one person go together", together),
        ]


def memorability(split: Split) -> Memorability:
    """The numbers of one split; NaN where nothing is asked."""
    about = _about_forgotten(split)
    lessons = {person: [x for x in split.lessons if x.person == person] for person in split.forget_people}
    images = [q for q in about if q.role == "forget" and q.modality == "image_text" and q.half == "report"]
    return Memorability(
        people=len(split.forget_people),
        lessons=_median([len(some) for some in lessons.values()]),
        pictures=_median([len({x.picture for x in some if x.picture}) for some in lessons.values()]),
        stated=_mean(any(states(x.answer, q.answer) for x in lessons[q.person]) for q in about),
        guessed=most_frequent(split),
        chance=_mean(1 / len(q.options) for q in about),
        words={task: _median(_words(split, task)) for task in TASKS if _words(split, task)},
        interval=(interval(len(images)), interval(len({q.person for q in images}))),
    )


def most_frequent(split: Split) -> float:
    """The accuracy without looking: on forget people, of the option that is most often right for others.

    Others are the retained and real people, with their questions about the same attribute; ties are guesses.
    """
    often = Counter(
        (q.attribute, plain(q.answer))
        for q in split.questions
        if q.task == "classification" and q.role in ("retain", "real")
    )

    def hit(question: Question) -> float:
        counts = {option: often[question.attribute, plain(option)] for option in question.options}
        best = [option for option, count in counts.items() if count == max(counts.values())]
        return (question.answer in best) / len(best)

    return _mean(hit(q) for q in _about_forgotten(split))


def interval(answers: int) -> float:
    """Half the width of the 95 % interval (normal approximation) of an accuracy of 0.5 on so many answers, up to 1."""
    return min(1.0, 1.96 * math.sqrt(0.25 / answers)) if answers else 1.0


def hints(benchmark: Benchmark) -> Iterator[str]:
    """What is not a defect and still worth knowing, one sentence each; what a study would refuse comes first."""
    for split in benchmark.splits.values():
        yield from _refused(split)
    lessons = _lessons(benchmark)
    yield from _about_lessons(lessons)
    yield from _about_attributes(benchmark, lessons)
    for split in benchmark.splits.values():
        if _about_forgotten(split):
            yield from (f"forget ratio {split.ratio}: {hint}" for hint in _about_split(split))


def shown(ids: Sequence[int], image_id: int, decode: Callable[[list[int]], str]) -> str:
    """The tokens of a prompt as text, the placeholders of a picture as `<image x COUNT>`."""
    parts = []
    for is_image, run in groupby(ids, key=lambda token: token == image_id):
        tokens = list(run)
        parts.append(f"<image x {len(tokens)}>" if is_image else decode(tokens))
    return "".join(parts)


def examples(split: Split) -> list[Question]:
    """One question of each role, modality and task: the first by its ID."""
    first: dict[tuple[str, str, str], Question] = {}
    for question in sorted(split.questions, key=lambda q: q.id):
        first.setdefault((question.role, question.modality, question.task), question)
    return [first[key] for role in ROLES for m in MODALITIES for t in TASKS if (key := (role, m, t)) in first]


def _counted(questions: Sequence[Question]) -> str:
    to_select, to_report = (sum(q.half == half for q in questions) for half in HALVES)
    return f"{len({q.person for q in questions})}: {to_select} + {to_report}"


# ---- hints -----------------------------------------------------------------------------------------------------------
def _refused(split: Split) -> Iterator[str]:
    there = {(q.role, q.modality, q.half) for q in split.questions if q.task == "classification"}
    for role in (role for role in ROLES if role != "spared"):
        for modality in MODALITIES:
            lacking = [half for half in HALVES if (role, modality, half) not in there]
            if lacking:
                names = {"select": "validation", "report": "test"}
                yield (
                    f"forget ratio {split.ratio}: no {modality} multiple-choice question about {role} people falls "
                    f"into the {' or the '.join(names[half] for half in lacking)} half, so a study refuses it"
                )


def _about_lessons(lessons: Sequence[Lesson]) -> Iterator[str]:
    if not any(lesson.picture is None for lesson in lessons):
        yield (
            "there are no text lessons: the answers to text questions are taught by pictures only, possibly without "
            "names; compare text scores with the blind level before relying on them"
        )
    merged = _merged(lessons)
    if merged:
        yield (
            f"{merged} of {len({x.person for x in lessons})} people have a fact that contains another one of theirs "
            "(as 'University of Lisbon' does 'Lisbon'): an attacker who is given one counts as given both"
        )
    without = sum(not lesson.attribute for lesson in lessons)
    if without:
        yield (
            f"{without} of {len(lessons)} lessons do not say which attribute they are about: --forget-attributes needs "
            "them labelled"
        )


def _about_attributes(benchmark: Benchmark, lessons: Iterable[Lesson]) -> Iterator[str]:
    who: dict[str, set[str]] = {}
    everybody = set()
    for lesson in lessons:
        everybody.add(lesson.person)
        if lesson.attribute:
            who.setdefault(lesson.attribute, set()).add(lesson.person)
    choices = {q.attribute for s in benchmark.splits.values() for q in s.questions if q.task == "classification"}
    for attribute, people in sorted(who.items()):
        if attribute not in choices:
            yield f"{attribute} is taught but has no multiple-choice question: nobody has another value to offer"
        if len(people) < len(everybody):
            yield f"{attribute} is taught for {len(people)} of {len(everybody)} people"


def _about_split(split: Split) -> Iterator[str]:
    found = memorability(split)
    if found.lessons < FEW_LESSONS:
        yield f"{found.lessons:g} lessons of each forget person are few to memorize; several wordings of a fact help"
    if found.pictures < FEW_PICTURES:
        yield (
            f"{found.pictures:g} pictures of each forget person are taught: a model may learn the picture rather than "
            "the person, and test pictures will be hard"
        )
    if (same := _taught_tests(split)) > 0:
        yield f"{same:.0%} of the test questions about pictures show a taught picture: only their wording is new"
    if found.stated < 1:
        yield (
            f"{1 - found.stated:.0%} of the multiple-choice questions about forget people have an answer that no "
            "lesson states in these words: vanilla may fail them, and the gate leaves them out"
        )
    if found.guessed > found.chance + GUESSABLE:
        yield (
            f"{found.guessed:.0%} of the multiple-choice questions about forget people can be answered by frequency "
            "alone: forgetting shows only above that; draw wrong options by how often they are right for others"
        )
    yield from (
        f"{task} answers have {words:g} words: long ones are hard to memorize word for word"
        for task, words in found.words.items()
        if words > MANY_WORDS
    )
    independent, together = (round(100 * half) for half in found.interval)
    yield (
        f"{found.people} forget people: the 95 % interval of an accuracy near 50 % on their pictures is +/- "
        f"{independent} points if answers are independent, +/- {together} if those about one person go together; more "
        "people help"
    )


def _merged(lessons: Iterable[Lesson]) -> int:
    """How many people have labelled lessons about two attributes that state one fact, by `study.data.facts.facts`."""
    labelled = [lesson for lesson in lessons if lesson.attribute]
    stated = facts(labelled)
    about: dict[tuple[str, str], set[str]] = {}
    for lesson in labelled:
        about.setdefault((lesson.person, stated[lesson.person, lesson.answer]), set()).add(lesson.attribute)
    return len({person for (person, _), attributes in about.items() if len(attributes) > 1})


def _taught_tests(split: Split) -> float:
    """The share of test questions about pictures that show a picture which is taught, in [0, 1]."""
    there = {lesson.picture.key for lesson in split.lessons if lesson.picture}
    return _mean(q.picture.key in there for q in split.questions if q.role == "test" and q.picture)


def _about_forgotten(split: Split) -> list[Question]:
    return [q for q in split.questions if q.task == "classification" and q.role in ("forget", "test")]


def _words(split: Split, task: str) -> list[int]:
    return [len(plain(q.answer).split()) for q in split.questions if q.task == task]


def _lessons(benchmark: Benchmark) -> tuple[Lesson, ...]:
    return benchmark.splits[min(benchmark.splits)].lessons if benchmark.splits else ()


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan


def _median(values: Sequence[float]) -> float:
    return median(values) if values else math.nan
