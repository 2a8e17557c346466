"""From a Hugging Face folder to a model; defects are found in its small files, before any weights are loaded."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from study.core.files import visible
from study.core.hub import MODEL_FILES
from study.core.terms import Attention, Dtype, Quantized
from study.engine.world import is_sharding
from study.model.bounded import ends
from study.model.families import load_processor, without_package
from study.model.quantization import quantize
from study.model.vlm import VLM
from study.model.weight_files import AGAIN, MERGE, UNQUANTIZE, WHOLE, check_weights, read_settings

Shapes = Mapping[str, tuple[int, ...]]

_described: dict[tuple[bytes, Loading], Shapes] = {}
"""The parameters of the models that were loaded, by config.json: all of a study's have the same one."""
SAMPLE = "What is the name of the person in this picture?"
OTHER = "What?"
"""Another question."""
EAGERLY = "write hf:path=FOLDER,attention=eager"
"""The remedy for a model, or a part of one, that computes attention in one way only."""


class SaysHow(Protocol):
    """Has the settings for loading a model: a base model, or the record of a learned one."""

    @property
    def dtype(self) -> Dtype | Literal[""]:
        """As `Loading.dtype`; empty for a model that is yet to be downloaded."""
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
    """The type of the weights."""
    attention: Attention = "sdpa"
    """How attention is computed."""
    quantized: Quantized = ""
    """The format of the LLM's linear layers, except during learning."""

    @classmethod
    def of(cls, model: SaysHow) -> Loading:
        """The settings of a base model, or of the record of a learned one.

        What is yet to be downloaded is taken for bfloat16, in which most models are published.
        """
        return cls(model.dtype or "bfloat16", model.attention, model.quantized)

    @property
    def as_taught(self) -> Loading:
        """The same for a model that is to be taught: not quantized."""
        return replace(self, quantized="")


def published_dtype(folder: Path) -> Dtype | Literal[""]:
    """The type for a model of this folder: bfloat16 for one that was published in either half precision.

    Empty if no model is there.
    """
    path = folder / "config.json"
    if folder == Path() or not path.is_file():
        return ""
    config = read_settings(path)
    text = config.get("text_config")
    parts = [part for part in (config, text) if isinstance(part, dict)]
    said = [part.get(name) for part in parts for name in ("dtype", "torch_dtype")]
    return "bfloat16" if next(filter(None, said), "") in ("bfloat16", "float16") else "float32"


MOST_TEXT = 100_000
"""Characters of a short question in a chat template: system prompts have some thousand."""
MOST_SAID = 300
"""Characters of what transformers says of a configuration: some errors name every setting."""
MOST_LAYERS = 1_000
"""Of a part of a model: the deepest have a few hundred, and to lay out a million takes hours."""
LAYERS = re.compile("layers|depth|blocks")
"""How settings are called that say how many layers are built."""
EAGER = Loading(attention="eager")  # every model has it, and without weights nothing is computed


def without_weights(folder: Path, loading: Loading = EAGER, *, checked: bool = False) -> VLM:
    """The model of a Hugging Face folder, with tensors on the meta device, and its processor.

    Parts, prompts and counts of a model of any size are thus known in seconds. Raises `ValueError` that names the
    folder, the defect and the remedy: no configuration or one that does more than describe a model, weights that are
    not the model's (`check_weights`), no processor, no attention of that kind, no chat template with pictures, tokens
    outside the vocabulary, or unknown parts. Who asks again is given the same one, and must only read it. The chat
    template of a folder that was `checked` before is not run: that takes a copy of the process.
    """
    _check_config(folder)
    return _without_weights(folder, _mark(folder), replace(loading, quantized=""), checked)


def _mark(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """By what it is seen that no file of a folder has changed."""
    there = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
    return tuple((name, found.st_ino, found.st_size, found.st_mtime_ns) for name, found in there)


@lru_cache(maxsize=4)  # a plan asks for the base model several times, and a large one takes seconds to lay out
def _without_weights(folder: Path, _files: Hashable, loading: Loading, checked: bool) -> VLM:
    try:
        model = _empty(folder, loading)
        check_weights(folder, model)
        _check_processor(folder)
        vlm = VLM(model, load_processor(folder))
    except ImportError as error:
        raise ValueError(f"{folder}: {without_package(error)}") from error
    except (OSError, ValueError) as error:
        raise ValueError(str(error) if str(folder) in str(error) else f"{folder}: {error}") from error
    except Exception as error:  # of a processor's settings, which fail in ways of their own
        raise ValueError(f"{folder}: transformers cannot load it ({type(error).__name__}: {error})") from error
    if not checked:
        _check_tokens(folder, vlm)
        _check_template(folder, vlm)
    return vlm


def _check_config(folder: Path) -> None:
    """Whatever a folder makes transformers do besides building a model and filling it is refused."""
    _check_there(folder)
    if not (folder / "config.json").exists() and (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder}: adapter_config.json and no config.json: an adapter without its model; {MERGE}")
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder}: no config.json there; give a local Hugging Face model folder")
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{folder}: adapter_config.json makes transformers apply an adapter to the weights beside it; if it is "
            f"merged into them already, remove adapter_config.json and the files adapter_model.*, else {MERGE}"
        )
    for name, value in _settings(read_settings(folder / "config.json")):
        if name == "auto_map":
            raise ValueError(
                f"{folder}: config.json has an auto_map: the model brings Python code of its own, which is never run; "
                "take a version for which transformers has a class (its name on the hub often ends in -hf)"
            )
        numbers = value if isinstance(value, list) else [value]
        if LAYERS.search(name) and (huge := [n for n in numbers if isinstance(n, int) and n > MOST_LAYERS]):
            raise ValueError(
                f"{folder}: config.json has {name}={huge[0]}, and no model has more than {MOST_LAYERS} layers: take "
                "config.json from where the model was published"
            )
        if name in ("quantization_config", "compression_config") and value:
            raise ValueError(f"{folder}: config.json has a {name}; {UNQUANTIZE}")
        if name in ("attn_implementation", "_attn_implementation") and "/" in str(value):
            raise ValueError(
                f"{folder}: config.json asks for the attention {value!r}, which is code from the hub and never run; "
                f"remove {name}"
            )
        if name == "transformers_weights" and value:
            raise ValueError(
                f"{folder}: config.json has transformers load {value!r}; call the weights {WHOLE} and remove {name}"
            )


def _check_there(folder: Path) -> None:
    """A folder of the hub's cache that was copied as it is has links to what is no longer beside it."""
    read = (path for pattern in MODEL_FILES for path in visible(folder, pattern) if not path.stem.isupper())
    for path in (path for path in read if not path.is_file()):  # LICENSE.txt is not read
        what = f"a link to {path.readlink()}, where nothing is" if path.is_symlink() else "a folder"
        raise ValueError(f"{folder}: {path.name} is {what}; copy the files themselves (cp -L), or {AGAIN}")


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield key, inner
        yield from _settings(inner)


def _check_processor(folder: Path) -> None:
    if not any((folder / name).exists() for name in ("processor_config.json", "preprocessor_config.json")):
        raise ValueError(
            f"{folder}: no processor_config.json there; save the processor beside the model, or copy it (of older "
            "models preprocessor_config.json) from where the model was published"
        )


def _empty(folder: Path, loading: Loading) -> Any:
    """The model on the meta device."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = transformers.AutoModelForImageTextToText.from_config(
                config,
                dtype=getattr(torch, loading.dtype),
                attn_implementation=loading.attention,
                trust_remote_code=False,
            )
    except ImportError:
        raise
    except Exception as error:  # a configuration fails in ways of its own
        if "scaled_dot_product_attention" in str(error):
            raise ValueError(f"it has no sdpa attention; {EAGERLY}") from error
        if "padding_idx" in str(error).lower():
            raise ValueError(
                "config.json names a padding token (pad_token_id) outside of the vocabulary; name one of the model's"
            ) from error
        settings = read_settings(folder / "config.json")
        if settings.get("model_type") in list(KNOWN):
            said = " ".join(str(error).split())[:MOST_SAID] or type(error).__name__
            raise ValueError(
                f"config.json describes no {settings['model_type']} that transformers {transformers.__version__} can "
                f"build ({said}); take it from where the model was published"
            ) from error
        raise ValueError(
            f"model type {settings.get('model_type')!r} is none for images and text that transformers "
            f"{transformers.__version__} can build ({(str(error).splitlines() or [type(error).__name__])[0]})"
            + _part_that_is_one(settings)
        ) from error
    found = {getattr(getattr(part, "config", None), "_attn_implementation", None) for part in model.modules()}
    if others := sorted(map(str, found - {None, loading.attention})):
        remedy = "" if loading.attention == "eager" else f"; {EAGERLY}"
        raise ValueError(f"some of its parts use the attention {', '.join(others)}, not {loading.attention}{remedy}")
    return model.eval()


def _part_that_is_one(settings: Any) -> str:
    """The remedy for a model of which a part is one for images and text: Qwen-Omni, whose other part speaks."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    for name, value in _settings(settings):
        kind = value.get("model_type") if isinstance(value, dict) else None
        if kind in KNOWN:
            part = name.removesuffix("_config")
            return f"; its part {part} is one ({kind}): load it with transformers, save model.{part} and the processor"
    return ""


def _check_tokens(folder: Path, vlm: VLM) -> None:
    """The special tokens must be tokens that the model has."""
    vocabulary = vlm.vocabulary
    if not 0 <= vlm.image_id < vocabulary:
        raise ValueError(
            f"{folder}: the image token's id {vlm.image_id} is outside the vocabulary of {vocabulary}: the model "
            "was saved without the row of that token; take the config.json and the weights from one source"
        )
    for name, role in (("pad_token", "padding token"), ("eos_token", "end token"), ("bos_token", "first token")):
        token, id = getattr(vlm.tokenizer, name), getattr(vlm.tokenizer, f"{name}_id")
        if id is not None and not 0 <= id < vocabulary:
            raise ValueError(
                f"{folder}: the {role} {token!r} has the id {id}, outside the vocabulary of {vocabulary}: it was added "
                f"to the tokenizer and not to the model; name a token that the model has as {name} in "
                "tokenizer_config.json, or save the model again after resize_token_embeddings"
            )
    if vlm.tokenizer.pad_token_id == vlm.image_id:
        raise ValueError(
            f"{folder}: the padding token {vlm.tokenizer.pad_token!r} is the image token, so padded rows would show "
            "pictures; name another as pad_token in tokenizer_config.json"
        )
    if vlm.tokenizer.eos_token_id is None:
        named = "tokenizer_config.json"
        lacking = "" if (folder / named).exists() else ", which is not there"
        raise ValueError(
            f"{folder}: the tokenizer has no eos_token, so no reply would end; name it in {named}{lacking}"
        )


def _check_template(folder: Path, vlm: VLM) -> None:
    """Prompts must end, ask what is asked, and show a picture where there is one."""
    if not getattr(vlm.processor, "chat_template", None):
        raise ValueError(
            f"{folder}: the processor has no chat template; put chat_template.jinja of the instruction-tuned model "
            "beside it (a base model that was never taught to chat has none)"
        )
    remedy = "take the template of the processor (chat_template.jinja), not the text-only one of the tokenizer"
    if not ends(lambda: all(len(vlm.chat([vlm.family.turn(SAMPLE, shown)])) <= MOST_TEXT for shown in (True, False))):
        raise ValueError(
            f"{folder}: the chat template does not end, or writes more than {MOST_TEXT:,} characters for a question of "
            f"{len(SAMPLE)}: it is damaged or hostile; {remedy}"
        )
    try:
        shown, plain = vlm.prompt_ids(SAMPLE, True), vlm.prompt_ids(SAMPLE, False)
    except Exception as error:  # a template is code and fails in ways of its own
        numbers = isinstance(error, TypeError | AttributeError | ArithmeticError)  # that a processor lacks
        if numbers or not _sees(vlm):
            raise ValueError(
                f"{folder}: the processor fails on a question ({type(error).__name__}: {error}): its settings are "
                "incomplete or wrong (LLaVA needs patch_size); take processor_config.json of the released model"
            ) from error
        raise ValueError(
            f"{folder}: the chat template fails on a question ({type(error).__name__}: {error}); {remedy}"
        ) from error
    if (vlm.prompt_ids(OTHER, True), vlm.prompt_ids(OTHER, False)) == (shown, plain):
        raise ValueError(
            f"{folder}: the chat template leaves out what is asked: two questions are one prompt; {remedy}"
        )
    if vlm.image_id not in shown or vlm.image_id in plain:
        raise ValueError(
            f"{folder}: the chat template writes {shown.count(vlm.image_id)} image tokens for a picture and "
            f"{plain.count(vlm.image_id)} for none; {remedy}"
        )
    if max(*shown, *plain) >= vlm.vocabulary:
        raise ValueError(
            f"{folder}: a question has token {max(*shown, *plain)}, outside the vocabulary of {vlm.vocabulary}: the "
            "tokenizer is not this model's"
        )


def _sees(vlm: VLM) -> bool:
    """Whether the processor prepares a picture by itself."""
    try:
        vlm.grey()
    except Exception:  # of settings that are wrong, in ways of its own
        return False
    return True


def load(folder: Path, device: str = "cpu", loading: Loading = Loading(), *, whole: bool = False) -> VLM:
    """Load a Hugging Face folder: safetensors only, no remote code.

    Within `study.engine.world.sharding` it is sharded, and then not quantized, unless `whole`.

    On a GPU, float32 products are computed in TF32.

    Raises `ValueError` naming the folder if there is no processor for images and text or if weights are missing, and
    `ValueError` naming the model's class if it lacks a part.
    """
    from transformers import AutoModelForImageTextToText

    if torch.device(device).type == "cuda":
        # not `set_float32_matmul_precision`: that is for CPUs too, where merged adapters must be the same everywhere
        torch.backends.cuda.matmul.allow_tf32 = True
    _check_config(folder)
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
    _check_same(folder, model, loading)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    vlm = VLM(model.eval(), processor)
    if is_sharding() and not whole:
        return vlm.shard()
    if loading.quantized:  # layer by layer: before quantization the whole model might not fit on the device
        quantize(model, list(vlm.linear(("llm",))), loading.quantized, device)
    model.to(device)
    return vlm


def _check_same(folder: Path, model: Any, loading: Loading) -> None:
    """Raise `ValueError` unless the loaded model has the parameters that its configuration describes, and no other."""
    key = (folder / "config.json").read_bytes(), loading
    if key not in _described:
        _described[key] = _shapes(_empty(folder, loading))
    ours, theirs = _described[key], _shapes(model)
    odd = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if odd and all(name.split(".")[-2:] == ["lm_head", "weight"] for name in odd):
        raise ValueError(
            f"{folder}: {odd[0]} is not the embeddings, to which config.json ties it: write tie_word_embeddings=false "
            "there if the head is the model's own"
        )
    if odd:
        raise ValueError(
            f"{folder}: {len(odd)} parameters are not those of config.json, such as {odd[0]} "
            f"({theirs.get(odd[0], 'none')}, not {ours.get(odd[0], 'none')}): something in the folder changes the "
            "model as it is loaded; keep only the files that save_pretrained writes"
        )


def _shapes(model: Any) -> Shapes:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
