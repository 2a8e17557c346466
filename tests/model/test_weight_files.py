"""The files of weights: a sound folder passes; of an unsound one file, defect and the fitting remedy are told."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from study.model.loading import EAGER, _empty, load, without_weights
from study.model.weight_files import DTYPES, INDEX, WHOLE, check_weights, stored
from tests.helpers.families import FAMILIES

Tensors = dict[str, Tensor]


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "copied")


def resaved(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    save_file(change(load_file(folder / WHOLE)), folder / WHOLE, {"format": "pt"})


def sharded(folder: Path) -> None:
    """The same weights in two files with an index."""
    tensors = load_file(folder / WHOLE)
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in halves.items():
        save_file({name: tensors[name] for name in some}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, some in halves.items() for name in some}}
    (folder / INDEX).write_text(json.dumps(index))
    (folder / WHOLE).unlink()


# ---- sound -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
def test_a_sound_folder_passes_and_every_header_is_read(name: str, family_folders: dict[str, Path]) -> None:
    folder = family_folders[name]
    without_weights(folder)
    written = load_file(folder / WHOLE)
    assert {n: (t.shape, DTYPES[t.dtype]) for n, t in stored(folder).items()} == {
        n: (tuple(t.shape), t.dtype) for n, t in written.items()
    }


def test_shards_and_older_names_are_sound(copied: Path) -> None:
    """Names as in released LLaVA-1.5, of before transformers 4.52, are renamed as it is loaded."""
    before = {name: tensor.clone() for name, tensor in load(copied).model.state_dict().items()}
    assert any(name.startswith("language_model.model.") for name in stored(copied).keys() - before.keys())
    sharded(copied)
    without_weights(copied)
    assert all(torch.equal(tensor, before[name]) for name, tensor in load(copied).model.state_dict().items())


# ---- unsound files ---------------------------------------------------------------------------------------------------
def _pointer(folder: Path) -> None:
    (folder / WHOLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _nothing(folder: Path) -> None:
    (folder / WHOLE).write_bytes(b"")


def _page(folder: Path) -> None:
    (folder / WHOLE).write_text("<!DOCTYPE html><title>Sign in</title>")


def _cut(folder: Path) -> None:
    (folder / WHOLE).write_bytes((folder / WHOLE).read_bytes()[:-1])


def _cut_header(folder: Path) -> None:
    (folder / WHOLE).write_bytes((folder / WHOLE).read_bytes()[:100])


def _longer(folder: Path) -> None:
    (folder / WHOLE).write_bytes((folder / WHOLE).read_bytes() + b"\0")


def _written(folder: Path, header: object, content: bytes) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    (folder / WHOLE).write_bytes(struct.pack("<Q", len(text)) + text + content)


def _gap(folder: Path) -> None:
    _written(folder, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8)


def _wrong_range(folder: Path) -> None:
    _written(folder, {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4)


def _in_fp4(folder: Path) -> None:
    _written(folder, {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"\0")


def _nested(folder: Path) -> None:
    _written(folder, "{" + '"a":{' * 100_000, b"")


def _no_index(folder: Path) -> None:
    sharded(folder)
    (folder / INDEX).unlink()


def _no_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def _both(folder: Path) -> None:
    shutil.copy(folder / WHOLE, folder / "kept")
    sharded(folder)
    (folder / "kept").rename(folder / WHOLE)


def _outside(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": f"../copied/{WHOLE}"}}))


def _adapter_only(folder: Path) -> None:
    (folder / WHOLE).rename(folder / "adapter_model.safetensors")


def _unfinished(folder: Path) -> None:
    (folder / WHOLE).rename(folder / f"{WHOLE}.incomplete")


def _variant(folder: Path) -> None:
    (folder / WHOLE).rename(folder / "model.fp16.safetensors")


def _twice(folder: Path) -> None:
    sharded(folder)
    first, second = sorted(folder.glob("model-*.safetensors"))
    shutil.copy(first, second)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_pointer, r"model\.safetensors is the pointer of git-lfs, not the file; run `git lfs pull` there"),
        (_nothing, r"model\.safetensors is empty; download it again"),
        (_page, r"model\.safetensors is no safetensors file \(it begins with b'<!DOCTYPE html>"),
        (_cut, r"model\.safetensors is truncated: [\d,]+ bytes, and its header tells of [\d,]+; download it again"),
        (_cut_header, r"model\.safetensors is truncated: it ends within its header"),
        (_longer, r"model\.safetensors has bytes of no tensor"),
        (_gap, r"model\.safetensors has a damaged header \(a of shape \(1,\) has the bytes 4 to 8\)"),
        (_wrong_range, r"damaged header \(a of shape \(2,\) has the bytes 0 to 4\)"),
        (_in_fp4, r"holds tensors of a type that no model is trained in, such as a \(F4\); take the model as it was"),
        (_nested, r"model\.safetensors has a damaged header"),
        (_no_index, r"neither model\.safetensors nor model\.safetensors\.index\.json.*; download the index"),
        (_no_shard, r"names model-00002-of-00002\.safetensors, which are not there: download them again"),
        (_both, r"both model\.safetensors and, by model\.safetensors\.index\.json, model-00001-of-00002"),
        (_outside, r"names \.\./copied/model\.safetensors, which is not in the folder"),
        (_adapter_only, r"adapter_model\.safetensors is an adapter without its model; merge the adapter first"),
        (_unfinished, r"no \.safetensors weights there, but model\.safetensors\.incomplete; wait for the download"),
        (_variant, r"model\.fp16\.safetensors, but no model\.safetensors: if it is the whole model call it so, else"),
        (_twice, r"is in model-00001-of-00002\.safetensors and in model-00002-of-00002\.safetensors"),
    ],
)
def test_an_unsound_file_is_named(damage: Callable[[Path], None], message: str, copied: Path) -> None:
    damage(copied)
    with pytest.raises(ValueError, match=message) as caught:
        without_weights(copied)
    assert str(copied) in str(caught.value)


# ---- weights of something else ---------------------------------------------------------------------------------------
def _lost(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if "projector" not in name}


def _other_names(tensors: Tensors) -> Tensors:
    return {f"other.{name}": tensor for name, tensor in tensors.items()}


def _in_parallel(tensors: Tensors) -> Tensors:
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def _with_adapter(tensors: Tensors) -> Tensors:
    return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}


def _in_int8(tensors: Tensors) -> Tensors:
    return {n: t.to(torch.int8) if "q_proj.weight" in n else t for n, t in tensors.items()}


def _in_4_bits(tensors: Tensors) -> Tensors:
    return tensors | {f"{n}.absmax": torch.ones(1) for n in tensors if "q_proj.weight" in n}


def _more_tokens(tensors: Tensors) -> Tensors:
    return {n: torch.cat([t, t[:2]]) if "embed_tokens" in n else t for n, t in tensors.items()}


def _wider(tensors: Tensors) -> Tensors:
    return {n: torch.cat([t, t[:2]]) if "projector.linear_1.weight" in n else t for n, t in tensors.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lost, r"copied: \d weights are missing, such as \S*multi_modal_projector\S*: download the folder again"),
        (
            _other_names,
            r"weights are missing.*others are there, such as .*: config\.json and the weights",
        ),
        (_in_parallel, r"all weights are called module\.\.\.\., .*saved within data parallelism; unwrap the model"),
        (_with_adapter, r"the weights are those of a model with an adapter.*; merge the adapter first"),
        (
            _in_int8,
            r"model\.safetensors holds quantized weights, such as \S*q_proj\.weight \(I8\); take the model",
        ),
        (_in_4_bits, r"holds quantized weights, such as \S*absmax \(F32\)"),
        (
            _more_tokens,
            r"embed_tokens\.weight has the shape .*; the embeddings are those of a vocabulary of \d+, not",
        ),
        (
            _wider,
            r"linear_1\.weight has the shape \(34, 32\), not \(32, 32\).*; take config\.json and",
        ),
    ],
)
def test_weights_of_another_model_are_told(change: Callable[[Tensors], Tensors], message: str, copied: Path) -> None:
    resaved(copied, change)
    with pytest.raises(ValueError, match=message):
        without_weights(copied)


def test_a_head_that_is_tied_in_one_place_alone_is_told(family_folders: dict[str, Path], tmp_path: Path) -> None:
    """Which of the two is right is known where the model was published; neither is guessed."""
    lost, tied = (Path(shutil.copytree(family_folders["llava_next"], tmp_path / name)) for name in ("lost", "tied"))
    resaved(lost, lambda tensors: {n: t for n, t in tensors.items() if "lm_head" not in n})
    with pytest.raises(
        ValueError, match=r"such as lm_head\.weight: config\.json does not tie .* take it from there, else"
    ):
        without_weights(lost)
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(
        ValueError, match=r"lm_head\.weight is not the embeddings, to which .*tie_word_embeddings=false"
    ):
        load(tied)


def test_what_a_model_has_no_use_for_is_told(copied: Path) -> None:
    resaved(copied, lambda tensors: tensors | {"talker.weight": torch.ones(3)})
    assert check_weights(copied, _empty(copied, EAGER)) == ["talker.weight"]


def test_no_weight_is_read(copied: Path) -> None:
    """What is told comes of the headers: a file of over a tebibyte, a hole but for its header, is sound."""
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["vocab_size"] = many = 2**33  # a token has 32 numbers of 4 bytes
    (copied / "config.json").write_text(json.dumps(config))
    tensors, end, header = stored(copied), 0, {}
    for name, tensor in tensors.items():
        shape = (many, *tensor.shape[1:]) if "embed_tokens" in name or "lm_head" in name else tensor.shape
        begin, end = end, end + math.prod(shape) * DTYPES[tensor.dtype].itemsize
        header[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": (begin, end)}
    content = json.dumps(header).encode()
    (copied / WHOLE).write_bytes(len(content).to_bytes(8, "little") + content)
    os.truncate(copied / WHOLE, 8 + len(content) + end)
    assert end > 2**40
    check_weights(copied, _empty(copied, EAGER))
