"""From a Hugging Face folder to a model; what is wrong with it is found from its small files, before any weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from study.core.files import read_json
from study.engine.world import spreads
from study.model.families import load_processor
from study.model.quantization import Quantized, quantize
from study.model.vlm import VLM, Attention, Dtype

SAMPLE = "What is the name of the person in this picture?"


def without_weights(folder: Path, dtype: Dtype = "float32", attention: Attention = "eager") -> VLM:
    """The model of a Hugging Face folder with tensors that have a shape and no values, and its processor.

    So parts, prompts and counts of a model of any size are known in seconds. Raises `ValueError` that names the folder,
    what is wrong and the remedy: no configuration or one that wants code of its own, weights that are missing or
    pickled, no processor, no attention of that kind, no chat template that shows pictures, tokens outside of the
    vocabulary, or parts that cannot be told.
    """
    _check_config(folder)
    _check_weights(folder)
    try:
        model = _empty(folder, dtype, attention)
        _check_processor(folder)
        vlm = VLM(model, load_processor(folder))
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
            "a version of it that transformers has a class for (its name on the hub often ends in -hf)"
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


def _empty(folder: Path, dtype: Dtype, attention: Attention) -> Any:
    """The model on the meta device."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = transformers.AutoModelForImageTextToText.from_config(
                config, dtype=getattr(torch, dtype), attn_implementation=attention, trust_remote_code=False
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
    """A question with a picture and one without must become tokens that the model has."""
    vocabulary = vlm.vocabulary
    if not 0 <= vlm.image_id < vocabulary:
        raise ValueError(
            f"{folder}: the image token's id {vlm.image_id} is outside of the vocabulary of {vocabulary}: the model "
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
            f"{folder}: a question has token {max(*shown, *plain)}, outside of the vocabulary of {vocabulary}: the "
            "tokenizer is not this model's"
        )


def load(
    folder: Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: Attention = "sdpa",
    quantized: Quantized = "",
    *,
    whole: bool = False,
) -> VLM:
    """Load a Hugging Face folder (safetensors only, no remote code), the LLM's linear layers `quantized` if asked.

    In a world where models are spread it is, unless it is to be `whole`.

    Raises `ValueError` naming the folder if the processor is not one for images and text or if weights are missing,
    `OSError` if there is no processor, and `ValueError` naming the model's class if it lacks a part.
    """
    from transformers import AutoModelForImageTextToText

    processor = load_processor(folder)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder,
        output_loading_info=True,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=dtype,
        attn_implementation=attention,
    )
    model, found = loaded
    if lost := sorted(found["missing_keys"]):  # transformers would fill them with random numbers and a warning
        raise ValueError(f"{folder}: {len(lost)} weights are missing, such as {lost[0]}: download the folder again")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    vlm = VLM(model.eval(), processor)
    if spreads() and not whole:
        return vlm.spread_out()
    if quantized:  # layer by layer: as numbers the whole model might not fit on the device
        quantize(model, list(vlm.linear(("llm",))), quantized, device)
    model.to(device)
    return vlm
