"""The statement that somebody signs: an in-toto Statement v1 over the weights and the data that the evidence is about.

It is written unsigned: whoever vouches for it signs with a key or an identity of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from study.core.erasure import benchmark_files
from study.core.hashing import Json, file_digest
from study.core.layout import StudyFolder

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:mllm-unlearning-study:deletion-evidence:v1"
SIGN = (
    "cosign attest-blob --statement statement.json --bundle statement.sigstore.json --yes",
    "python -m sigstore sign --bundle statement.sigstore.json statement.json",
)
"""How to sign: the first (cosign 3) attests the weights and data by their digests, the second signs the file itself."""


def statement(folder: StudyFolder, evidence: Json, files: Sequence[Path]) -> Json:
    """The statement on some evidence; `files` are the evidence's own, whose digests it holds as well."""
    model = evidence["model"]
    said = {name: evidence[name] for name in ("winner", "study", "at", "claim", "request", "margin", "versions",
                                              "revision", "settings")}  # fmt: skip
    return {
        "_type": TYPE,
        "subject": [_subject(folder, path) for path in subjects(folder, model["keys"], model["start"])],
        "predicateType": PREDICATE,
        "predicate": {
            **said, "model": model, "fingerprint": evidence["settings"].get("fingerprint", ""),
            "evidence": {path.name: {"sha256": file_digest(path)} for path in files}, "sign": list(SIGN),
        },
    }  # fmt: skip


def subjects(folder: StudyFolder, keys: list[str], start: str) -> list[Path]:
    """The weights of the model, exported or as what it changed of its start, and the files of the benchmark.

    A benchmark that lies elsewhere is known by its fingerprint alone.
    """
    weights = [path for key in keys for path in sorted(folder.export(key).glob("*.safetensors"))]
    deltas = [path for key in keys if (path := folder.delta(key)).exists()]
    starts = sorted(folder.model_dir(start).glob("*.safetensors"))
    return [*weights, *deltas, *starts, *benchmark_files(folder)]


def _subject(folder: StudyFolder, path: Path) -> Json:
    return {"name": path.relative_to(folder.root).as_posix(), "digest": {"sha256": file_digest(path)}}
