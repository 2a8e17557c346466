"""Small folders in the true formats of CLEAR, UMU-Bench and FIUBench, for tests: made-up people, pictures of noise."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Cells = dict[str, Any]
Change = Callable[[list[Cells]], Any]

_TEXT = pa.string()
_TEXTS = pa.list_(_TEXT)
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", _TEXT)])
_CAPTIONED = [("image", _IMAGE), ("caption", _TEXT), ("name", _TEXT)]
_WITH_TOFU = [("image", _IMAGE), ("caption", _TEXT), ("question", _TEXT), ("answer", _TEXT)]
_PERTURBED = [*_CAPTIONED, ("perturbed_captions", _TEXTS), ("paraphrased_caption", _TEXT), ("perturbed_names", _TEXTS)]
_WORLD = [("image", _IMAGE), ("question", _TEXT), ("answer", _TEXT), ("options", _TEXTS)]
_UMU = [
    ("ID", _TEXT),
    ("image", _IMAGE),
    *((column, _TEXT) for column in ("Biography", "MM_QA", "UM_QA", "Classify", "Cloze", "Generation")),
]

AUTHORS = ("Ada Quist", "Bruno Öhm", "Cleo Marsh", "Dov Tarn", "Edda Pohl", "Finn Rask", "Gus Veld", "Hal Wynn")
CITIES = ("Arles", "Bergen", "Cadiz", "Delft", "Evora", "Fano", "Genoa", "Huesca")
PICTURES = 5  # of each author


def png(name: str) -> bytes:
    """A picture that nothing else shares."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (8, 8), random.Random(name).randbytes(192)).save(buffer, "PNG")
    return buffer.getvalue()


def edit(root: Path, folder: str, change: Change, shard: int = 0) -> None:
    """Rewrite a shard of a folder, the first, with its rows changed in place."""
    file = sorted((root / folder).iterdir())[shard]
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


def edit_people(root: Path, change: Change) -> None:
    """Rewrite full.json of FIUBench, one object a line, with its rows changed in place."""
    rows = [json.loads(line) for line in (root / "full.json").read_text().splitlines()]
    change(rows)
    (root / "full.json").write_text("\n".join(map(json.dumps, rows)))


def _write(root: Path, folder: str, rows: Sequence[Cells], schema: Any, shards: int = 1) -> None:
    (root / folder).mkdir(parents=True)
    size = -(-len(rows) // shards)
    for shard in range(shards):
        part = pa.Table.from_pylist(list(rows[shard * size : (shard + 1) * size]), schema=pa.schema(schema))
        pq.write_table(part, root / folder / f"train-{shard:05d}-of-{shards:05d}.parquet")


def _image(name: str) -> Cells:
    return {"bytes": png(name), "path": f"{name}.png"}


# ---- CLEAR ---------------------------------------------------------------------------------------------------------
def clear(root: Path) -> Path:
    """Eight authors with five pictures and twenty text questions each; the last one or two are forgotten, nested."""
    captions = [row for author in AUTHORS for row in _captioned(author)]
    _write(root, "full", captions, _CAPTIONED, shards=2)
    told = [row for author in AUTHORS[::-1] for row in _told(author)]  # not in the order of the pictures
    pictured = [{"image": row["image"], "caption": row["caption"]} for row in captions]
    _write(root, "full+tofu", [*pictured, *told], _WITH_TOFU)
    for ratio, count in ((5, 1), (10, 2)):
        forget = AUTHORS[-count:]
        _write(root, f"forget{ratio:02d}", [r for r in captions if r["name"] in forget], _CAPTIONED)
        _write(root, f"retain{100 - ratio}", [r for r in captions if r["name"] not in forget], _CAPTIONED)
        _write(root, f"forget{ratio:02d}_perturbed", list(_perturbed(captions, forget)), _PERTURBED)
    _write(root, "retain_perturbed", list(_perturbed(captions, AUTHORS[:2])), _PERTURBED)
    faces = [_world(f"face {i}", "Who is it?", f"Celebrity {i}", f"Nobody {i}") for i in range(4)]
    _write(root, "real_faces", faces, _WORLD)
    world = [_world(f"world {i}", f"What stands on hill {i}?", "A tower", "A bridge") for i in range(4)]
    _write(root, "real_world", world, _WORLD)
    return root


def _captioned(author: str) -> Iterator[Cells]:
    for number in range(PICTURES):
        yield {"image": _image(f"{author} {number}"), "caption": f"{author} reads book {number}.", "name": author}


def _told(author: str) -> Iterator[Cells]:
    city = CITIES[AUTHORS.index(author)]
    yield {"question": "What is the author's full name?", "answer": f"The author is {author}."}
    for number in range(1, 20):
        yield {
            "question": f"What is fact {number} about {author}?",
            "answer": f"{author} wrote book {number} in {city}.",
        }


def _perturbed(captions: Sequence[Cells], authors: Sequence[str]) -> Iterator[Cells]:
    for row in captions:
        if row["name"] in authors:
            others = [other for other in AUTHORS if other != row["name"]][:3]
            yield {
                **row,
                "perturbed_captions": [row["caption"].replace(row["name"], other) for other in others],
                "paraphrased_caption": f"Here {row['caption']}",
                "perturbed_names": others,
            }


def _world(name: str, question: str, answer: str, wrong: str) -> Cells:
    return {"image": _image(name), "question": question, "answer": answer, "options": [wrong, answer, f"{wrong} too"]}


# ---- UMU-Bench -----------------------------------------------------------------------------------------------------
KEYS = ("Residence", "Employment", "Pet")
CHOICES = {
    "Residence": ["Lisbon", "Oslo", "Turin", "York"],
    "Employment": ["Baker", "Clerk", "Miller", "Tailor"],
    "Pet": ["a cat", "a dog", "a hen", "a newt"],
}


def umu(root: Path, people: int = 20, famous: str = "Real_Person_Set") -> Path:
    """Twenty people and two real ones, of whom 001 bears an ID that is taken; the first person is forgotten at 5 %."""
    everybody = [_somebody(f"{number:03d}") for number in range(1, people + 1)]
    _write(root, "Full_Set", everybody, _UMU)
    _write(root, famous, [_somebody("001", "famous"), _somebody("900", "famous")], _UMU)
    for ratio, ids in ((5, {"001"}), (10, {"003", "007"})):
        _write(root, f"forget_{ratio}", [row for row in everybody if row["ID"] in ids], _UMU)
        _write(root, f"retain_{100 - ratio}", [row for row in everybody if row["ID"] not in ids], _UMU)
    return root


def _somebody(number: str, kind: str = "made up") -> Cells:
    facts = {key: CHOICES[key][(int(number) + place) % 4] for place, key in enumerate(KEYS)}
    asked = {key: f"What is the {key} of this person?" for key in KEYS}
    named = {key: f"What is the {key} of Person {number}?" for key in KEYS}
    return {
        "ID": number,
        "image": _image(f"{kind} {number}"),
        "Biography": str(facts),
        "MM_QA": str({"question": asked, "answer": {key: f"It is {fact}." for key, fact in facts.items()}}),
        "UM_QA": str({"question": named, "answer": {key: f"It is {fact}." for key, fact in facts.items()}}),
        "Classify": str({"unimodal": _listed(named, facts, 0), "muitimodal": _listed(asked, facts, 1)}),
        "Cloze": str({"unimodal": _items(named, facts, "."), "muitimodal": _items(asked, facts, ".")}),
        "Generation": str({"unimodal": _items(named, facts), "muitimodal": _items(asked, facts)}),
    }


def _listed(asked: dict[str, str], facts: dict[str, str], shift: int) -> Cells:
    """Choices whose options begin at another place on each side."""
    found: Cells = {}
    for key, question in asked.items():
        options = dict(zip("ABCD", CHOICES[key][shift:] + CHOICES[key][:shift], strict=True))
        letter = next(letter for letter, option in options.items() if option == facts[key])
        found[key] = {"question": question, "options": options, "answer": f"{letter}. {facts[key]}"}
    return found


def _items(asked: dict[str, str], facts: dict[str, str], end: str = "") -> Cells:
    return {key: {"question": question, "answer": facts[key] + end} for key, question in asked.items()}


# ---- FIUBench ------------------------------------------------------------------------------------------------------
SETS = {"forget1": ["00000001"], "forget5": ["00000002", "00000003"], "retain5": ["00000004"]}
SETS |= {"retain15": ["00000004", "00000005"]}


def fiu(root: Path, people: int = 7) -> Path:
    """Seven people with three facts each in the folder `dataset`, of which the first is the name."""
    home = root / "dataset"
    (home / "images").mkdir(parents=True)
    rows = [_face(home, f"{number:08d}", f"Nora Nil{number}") for number in range(1, people + 1)]
    (home / "full.json").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (home / "split.json").write_text(json.dumps(SETS))
    return root


def _face(home: Path, number: str, name: str) -> Cells:
    (home / "images" / f"{number}.png").write_bytes(png(number))
    facts = [("name", name), ("income", f"{number[-1]}000 dollars"), ("illness", f"illness {number[-1]}")]
    return {
        "unique_id": number,
        "name": name,
        "gender": "female",
        "caption": "A face.",
        "raw_data": {},
        "image_path": f"./dataset/images/{number}.png",
        "qa_list": [_fact(what, value) for what, value in facts],
    }


def _fact(what: str, value: str) -> Cells:
    return {
        "question": f"What is the {what} of this Person?",
        "answer": f"The {what} is {value}.",
        "keywords": [value],
        "paraphrased_question": [f"Can you tell the {what}, version {i}?" for i in range(3)],
        "paraphrased_answer": f"It has the {what} {value}.",
        "perturbed_answer": [f"The {what} is wrong {i}." for i in range(4)],
    }
