"""FIUBench (Ma et al. 2024, arXiv 2411.03554): 400 fictitious people with drawn faces and private facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from study.benchmarks._fiu.people import read_people, read_set, read_sets
from study.benchmarks._fiu.questions import lessons, questions
from study.benchmarks._shared.defects import reading
from study.benchmarks._shared.links import whole_of
from study.benchmarks._shared.rows import digest
from study.benchmarks._shared.text_files import Files
from study.contracts import Source
from study.core.hub import folder as folder_of
from study.core.terms import Role
from study.data.benchmark import Benchmark, Split
from study.data.official_protocol import IMAGE, OfficialPrompt

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions. "
)
MOST_TOKENS = 50
"""Of a reply, as in the authors' code."""
RETAINED = "retain5"
"""The retain set that is asked and aggregated in config/eval.yaml and config/aggregate_eval_stat.yaml."""


@dataclass(frozen=True)
class Fiu(Source):
    """full.json, split.json and the pictures of gray311/FIUBench (Hugging Face hub), as they lie in `dataset/`.

    The first 400 people of full.json are taught. The sets forget1, forget5 and forget10 of split.json have nobody in
    common and are the ratios 1, 5 and 10; asked as `retain` are the people of its retain sets. A choice is among the
    answer and the `perturbed_answer`; free questions have the keywords. The role `test` asks the
    `paraphrased_question`s.

    Real people are not in it (its authors measure MME and POPE). Their role is that of the people in the other forget
    sets: FIUBench teaches them, forgets them not and leaves them out of what is retained, so no method trains on them,
    but they are as fictitious as the rest. It has no question without a picture either: such a one is the question
    behind the name, but for facts whose keywords are all in the name and for people who share theirs with somebody.
    `teach_text` teaches these too, which its recipe does not.
    """

    path: Path = Path()
    """The folder with full.json, or the one above it, `dataset`."""
    hub: str = ""
    """Instead of a folder, the name of a dataset on the Hugging Face hub, such as gray311/FIUBench."""
    revision: str = ""
    """Its commit."""
    teach_text: bool = True
    """Whether facts are taught in words too: without, questions without picture ask for what was never said so."""

    def __call__(self, folder: Path) -> Benchmark:
        """The dataset, validated; nothing is kept in `folder`. Raises `ValueError` naming what is wrong and where."""
        with reading() as found:
            benchmark = self._read(self._files())
        return found.of(benchmark)

    def _files(self) -> Files:
        root = folder_of(self.path, self.hub, self.revision, "dataset")
        home = root if (root / "full.json").exists() else root / "dataset"
        return Files(home, whole_of(root, snapshot=bool(self.hub)))

    def _read(self, files: Files) -> Benchmark:
        people = read_people(files)
        forget, retain = read_sets(files, people)
        taught = tuple(lesson for person in people.values() for lesson in lessons(person, self.teach_text))
        everybody = [id for ids in forget.values() for id in ids]
        splits = {}
        for ratio, ids in forget.items():
            others = [id for id in everybody if id not in ids]
            roles: list[tuple[Role, list[str]]] = [("forget", ids), ("test", ids), ("retain", retain), ("real", others)]
            asked = tuple(q for role, ids in roles for id in ids for q in questions(people[id], role))
            splits[ratio] = Split(ratio, frozenset(ids), taught, asked)
        return Benchmark("fiu", digest({**files.digests, "teach_text": str(self.teach_text)}), splits)

    def released(self, split: Split, folder: Path, seed: int) -> Iterator[OfficialPrompt]:
        """What evaluate_util.py of SaFoLab-WISC/FIUBench (revision 8e12cdd) asks of a forget set and of retain5.

        Where split.json has no retain5, of all retain sets. Paraphrases are among it. Greedy, at most 50 tokens, cut
        after the first full stop: nothing is left of a reply without one. Keywords have the spaces of the file. The
        text is that of its setting llava-v1.5-vicuna, which puts the question in small letters but for the first; it is
        tokenized, written out and tokenized again, so that it begins twice. Nothing is drawn.
        """
        kept = read_set(self._files(), RETAINED)
        for question in split.questions:
            left = question.role == "real" or (question.role == "retain" and kept and question.person not in kept)
            if question.task == "generation" and question.picture is not None and not left:
                text = f"{SYSTEM}USER: {IMAGE}\n{question.as_written[0].capitalize()} ASSISTANT: "
                shown = (replace(question.picture, as_stored=True),)
                asked = replace(question, keywords=question.as_written[2:])
                yield OfficialPrompt(asked, text, shown, MOST_TOKENS, "rouge_l_recall", _sentence, tokenized_twice=True)


def _sentence(reply: str) -> str:
    return reply[: reply.find(".") + 1].strip()
