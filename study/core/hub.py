"""Folders that may be on the Hugging Face hub. Nothing is downloaded unless a repository is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

NOWHERE = Path()
MODEL_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]
"""The files of a model that are read: configuration, chat template, vocabulary and weights."""


def folder(path: Path, hub: str, revision: str, kind: Literal["model", "dataset"]) -> Path:
    """The local folder `path`, or that of the hub's repository `hub` at `revision`, downloaded if it is missing.

    Downloads go to the cache of `huggingface_hub` (`HF_HOME`) and are not repeated; with `HF_HUB_OFFLINE=1` only the
    cache is used. Pickled weights are never fetched. Raises `ValueError` if neither or both are given, or if a
    repository comes without its full commit: "main" changes, and with it the results. A failing download raises
    `OSError` that names the repository.
    """
    if (path == NOWHERE) == (not hub):
        raise ValueError(f"path={path}, hub={hub!r}: give either a local folder or the name of a repository on the hub")
    if not hub:
        if not path.is_dir():
            raise ValueError(f"{path}: no such folder; give that of the {kind}, or hub=OWNER/NAME,revision=COMMIT")
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub):
        raise ValueError(f"hub={hub!r}: write OWNER/NAME")
    if not revision:
        raise ValueError(f"hub={hub}: pin what is downloaded, write hub={hub},revision=COMMIT")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            f"hub={hub}, revision={revision!r}: branches and tags can move, so give the full commit, 40 hexadecimal "
            "digits; the repository's page lists them under Files and versions, History"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    only: dict[str, Any] = {"allow_patterns": MODEL_FILES} if kind == "model" else {}
    try:
        return Path(snapshot_download(hub, revision=revision, repo_type=kind, **only))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise OSError(f"{kind} {hub} at revision {revision} cannot be downloaded: {error}") from error
