"""From a Hugging Face folder to a model; defects are found in its small files, before any weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from study.core.files import read_json
from study.core.terms import Attention, Dtype, Quantized
from study.engine.world import spreads
from study.model.families import load_processor, without_package
from study.model.quantization import quantize
from study.model.vlm import VLM

SAMPLE = "What is the name of the person in this picture?"


class SaysHow(Protocol):
    """Has the settings for loading a model: a base model, or the record of a learned one."""

    @property
    def dtype(self) -> Dtype:
        """As `Loading.dtype`."""
        ...

    @property
    def attention(self) -> Attention:
        """As `Loading.attention`."""
        ...

    @property
    def quantized(self) -> Quantized:
        """As `Loading.quantized`."""
        ...


@dataclass(frozen=True)
class Loading:
    """How a base model is loaded, and whatever is learned from it."""

    dtype: Dtype = "float32"
    """The type in which weights are kept, trained and saved."""
    attention: Attention = "sdpa"
    """How attention is computed."""
    quantized: Quantized = ""
    """The format of the LLM's linear layers, except during learning."""

    @classmethod
    def of(cls, model: SaysHow) -> Loading:
        """The settings of a base model, or of the record of a learned one."""
        return cls(model.dtype, model.attention, model.quantized)

    @property
    def as_taught(self) -> Loading:
        """The same for a model that is to be taught: not quantized."""
        return replace(self, quantized="")


EAGER = Loading(attention="eager")  # every model has it, and without weights nothing is computed


def without_weights(folder: Path, loading: Loading = EAGER) -> VLM:
    """The model of a Hugging Face folder, with tensors on the meta device, and its processor.

    Parts, prompts and counts of a model of any size are thus known in seconds. Raises `ValueError` that names the
    folder, the defect and the remedy: no configuration or one with its own code, weights that are missing or pickled,
    no processor, no attention of that kind, no chat template with pictures, tokens outside the vocabulary, or
    unknown parts.
    """
    _check_config(folder)
    _check_weights(folder)
    try:
        model = _empty(folder, loading)
        _check_processor(folder)
        vlm = VLM(model, load_processor(folder))
    except ImportError as error:
        raise ValueError(f"{folder}: {without_package(error)}") from error
    except (OSError, ValueError) as error:
        raise ValueError(str(error) if str(folder) in str(error) else f"{folder}: {error}") from error
    _check_tokens(folder, vlm)
    return vlm


def _check_config(folder: Path) -> None:
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"{folder}: no config.json there; give a local Hugging Face model folder")
    if "auto_map" in read_json(path):
        raise ValueError(
            f"{folder}: config.json has an auto_map: the model brings Python code of its own, which is never run; take "
            "a version for which transformers has a class (its name on the hub often ends in -hf)"
        )


def _check_processor(folder: Path) -> None:
    if not any((folder / name).exists() for name in ("processor_config.json", "preprocessor_config.json")):
        raise ValueError(
            f"{folder}: no processor_config.json there; save the processor beside the model, or copy it (of older "
            "models preprocessor_config.json) from where the model was published"
        )


def _check_weights(folder: Path) -> None:
    if not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder}: no .safetensors weights there; pickled .bin weights can run code and are not loaded: save the "
            "model again with save_pretrained, or take a revision that has safetensors"
        )
    index = folder / "model.safetensors.index.json"
    if index.exists():
        lost = sorted({name for name in read_json(index)["weight_map"].values() if not (folder / name).exists()})
        if lost:
            raise ValueError(
                f"{folder}: {index.name} names {', '.join(lost)}, which are not there: download them again"
            )


def _empty(folder: Path, loading: Loading) -> Any:
    """The model on the meta device."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = transformers.AutoModelForImageTextToText.from_config(
                config,
                dtype=getattr(torch, loading.dtype),
                attn_implementation=loading.attention,
                trust_remote_code=False,
            )
    except (KeyError, ValueError) as error:
        if "scaled_dot_product_attention" in str(error):
            raise ValueError("it has no sdpa attention; write hf:path=FOLDER,attention=eager") from error
        kind = read_json(folder / "config.json").get("model_type")
        raise ValueError(
            f"model type {kind!r} is none for images and text that transformers {transformers.__version__} can build "
            f"({str(error).splitlines()[0]})"
        ) from error
    return model.eval()


def _check_tokens(folder: Path, vlm: VLM) -> None:
    """A question with a picture and one without must consist of tokens that the model has."""
    vocabulary = vlm.vocabulary
    if not 0 <= vlm.image_id < vocabulary:
        raise ValueError(
            f"{folder}: the image token's id {vlm.image_id} is outside the vocabulary of {vocabulary}: the model "
            "was saved without the row of that token; take the config.json and the weights from one source"
        )
    if vlm.tokenizer.eos_token_id is None:
        raise ValueError(f"{folder}: the tokenizer has no eos_token, so no reply would end; name it in its config")
    if not getattr(vlm.processor, "chat_template", None):
        raise ValueError(
            f"{folder}: the processor has no chat template; put chat_template.jinja of the instruction-tuned model "
            "beside it (a base model that was never taught to chat has none)"
        )
    remedy = "take the template of the processor (chat_template.jinja), not the text-only one of the tokenizer"
    try:
        shown, plain = vlm.prompt_ids(SAMPLE, True), vlm.prompt_ids(SAMPLE, False)
    except Exception as error:  # a template is code and fails in ways of its own
        raise ValueError(
            f"{folder}: the chat template fails on a question ({type(error).__name__}: {error}); {remedy}"
        ) from error
    if vlm.image_id not in shown or vlm.image_id in plain:
        raise ValueError(
            f"{folder}: the chat template writes {shown.count(vlm.image_id)} image tokens for a picture and "
            f"{plain.count(vlm.image_id)} for none; {remedy}"
        )
    if max(*shown, *plain) >= vocabulary:
        raise ValueError(
            f"{folder}: a question has token {max(*shown, *plain)}, outside the vocabulary of {vocabulary}: the "
            "tokenizer is not this model's"
        )


def load(folder: Path, device: str = "cpu", loading: Loading = Loading(), *, whole: bool = False) -> VLM:
    """Load a Hugging Face folder: safetensors only, no remote code.

    Within `study.engine.world.spreading` it is sharded, and then not quantized, unless `whole`.

    Raises `ValueError` naming the folder if there is no processor for images and text or if weights are missing, and
    `ValueError` naming the model's class if it lacks a part.
    """
    from transformers import AutoModelForImageTextToText

    processor = load_processor(folder)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder,
        output_loading_info=True,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=getattr(torch, loading.dtype),
        attn_implementation=loading.attention,
    )
    model, found = loaded
    if lost := sorted(found["missing_keys"]):  # transformers would fill them with random numbers and a warning
        raise ValueError(f"{folder}: {len(lost)} weights are missing, such as {lost[0]}: download the folder again")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    vlm = VLM(model.eval(), processor)
    if spreads() and not whole:
        return vlm.spread_out()
    if loading.quantized:  # layer by layer: before quantization the whole model might not fit on the device
        quantize(model, list(vlm.linear(("llm",))), loading.quantized, device)
    model.to(device)
    return vlm
