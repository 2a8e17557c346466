"""CLEAR (Dontsov et al. 2024, arXiv 2410.18057): the 200 authors of TOFU, with pictures."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from study.benchmarks._clear.questions import CAPTION_PROMPTS, as_written, graded_in, number
from study.benchmarks._clear.reader import read
from study.benchmarks._shared.defects import reading
from study.contracts import Source
from study.core.hub import folder as folder_of
from study.data.benchmark import Benchmark, Split
from study.data.official_protocol import IMAGE, OfficialPrompt

ROWS = 300  # ds_size of its evaluation: the first rows of each set
MOST_TOKENS = 300  # of a reply, as in the authors' code


@dataclass(frozen=True)
class Clear(Source):
    """The parquet files of therem/CLEAR (Hugging Face hub). People are the authors, by name.

    Everybody's captions (each after one of the authors' nine prompts, chosen by the caption) and all text questions of
    TOFU are taught. forget and retain are the names in forgetXX and retainYY. Of pictures are asked the name, as a
    choice among `perturbed_names` and freely, and the caption, both with the wrong answers of the _perturbed sets; of
    retained people those in retain_perturbed, whose text questions are asked too.

    Four things the dataset lacks are built of it. Text questions name no author: twenty in a row are given to the one
    whose name they mention most. TOFU's wrong answers are not in it: a text choice has those that three others give at
    the same place, with this author's name for theirs, or at other places where three do not do. There is no test set:
    of everybody who may be forgotten the last `held_out` share of the pictures is not taught but asked about, a
    departure from the recipe, and the text questions of the test are those of forget behind a sentence of ours. Of the
    real sets every row has a picture: where that is so, real_world is asked a second time without, which tells what
    the model guesses, not what it sees.
    """

    path: Path = Path()
    """The folder that holds full, full+tofu, forget01, forget01_perturbed ..."""
    hub: str = ""
    """Instead of a folder, the name of a dataset on the Hugging Face hub, such as therem/CLEAR."""
    revision: str = ""
    """Its commit."""
    held_out: float = 0.2
    """The share of the pictures of people who may be forgotten that is kept for the test."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a share out of bounds."""
        if not 0 < self.held_out <= 0.5:
            raise ValueError(f"held_out={self.held_out}: more than 0, or nothing is left to test, and at most 0.5")

    def __call__(self, folder: Path) -> Benchmark:
        """The dataset, validated; nothing is kept in `folder`. Raises `ValueError` naming what is wrong and where."""
        root = folder_of(self.path, self.hub, self.revision, "dataset")
        with reading() as found:
            benchmark = read(root, self.held_out)
        return found.of(benchmark)

    def released(self, split: Split, folder: Path, seed: int) -> Iterator[OfficialPrompt]:
        """Names and captions as mm/eval.py of somvy/multimodal_unlearning (revision bb14c96) asks them.

        Greedy, 300 rows of each set, scored by the recall of ROUGE-L, and graded by how likely the answer, its
        paraphrase and the wrong answers are, all as the file has them. The prompt is put into the model's chat
        template, which for LLaVA-1.5 gives the text here; captions are asked by one of the nine prompts at random. That
        code drops the picture before it generates, tokens and pixels, so what it reports is said blindly; here the
        picture is shown, upright as the library datasets decodes it.
        """
        for question in split.questions:
            if question.task == "generation" and question.picture is not None and number(question) < ROWS:
                asked, prompt = as_written(question), question.as_written[0]
                if prompt in CAPTION_PROMPTS:
                    prompt = random.Random(f"{seed} {question.id}").choice(CAPTION_PROMPTS)
                text = f"USER: {IMAGE}\n{prompt} ASSISTANT: "
                shown = (replace(question.picture, as_stored=True, turned=True),)
                yield OfficialPrompt(
                    asked, text, shown, MOST_TOKENS, "rouge_l_recall", asked=prompt, graded_in=graded_in(question)
                )
