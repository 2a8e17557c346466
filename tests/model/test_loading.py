"""Downloaded models: a sound folder is taken as it is, and what is wrong with one is said before weights are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM
from transformers.models.auto import processing_auto

from study import run
from study.base_models.hf import Hf
from study.base_models.tiny import Tiny
from study.core.hashing import content_key
from study.core.hub import MODEL_FILES
from study.core.specs import plugin
from study.core.terms import PARTS
from study.model import loading
from study.model.families import load_processor
from study.model.families.llava import Llava
from study.model.loading import SAMPLE, Loading, load, without_weights
from study.model.vlm import VLM
from study.presets import PRESETS
from study.stages import learn
from study.stages.plan import identity_of
from study.stages.preflight import validate_study
from tests.helpers.families import FAMILIES

HUB = "llava-hf/llava-1.5-7b-hf"
COMMIT = "b234b80" + 33 * "0"


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "copied")


def edited(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# ---- sound folders -----------------------------------------------------------------------------------------------
def test_a_folder_is_laid_out_once_until_it_changes(copied: Path) -> None:
    before = without_weights(copied, Loading())
    assert without_weights(copied, Loading(quantized="nf4")) is before
    assert without_weights(copied, Loading("bfloat16")) is not before
    template = copied / "chat_template.jinja"
    template.write_text(template.read_text().replace("USER", "Who"))
    after = without_weights(copied, Loading())
    assert after.prompt_ids("", False) != before.prompt_ids("", False)


@pytest.mark.parametrize("name", FAMILIES)
def test_without_weights_a_model_is_the_same(name: str, family_folders: dict[str, Path], tmp_path: Path) -> None:
    """Its parts, prompts and sides are those of the loaded one, and nothing is made or held in memory."""
    folder = family_folders[name]
    assert Hf(folder)(tmp_path / "study") == folder
    assert not (tmp_path / "study").exists()
    empty, whole = without_weights(folder, Loading("bfloat16")), load(folder)
    assert {p.device.type for p in empty.model.parameters()} == {"meta"}
    assert empty.model.dtype == torch.bfloat16
    assert (empty.prefixes, empty.side, empty.image_tokens) == (whole.prefixes, whole.side, whole.image_tokens)
    for part in PARTS:
        shapes = [{n: p.shape for n, p in vlm.trainable([part]).items()} for vlm in (empty, whole)]
        assert shapes[0] == shapes[1]
    assert empty.prompt_ids("Who is this?", True) == whole.prompt_ids("Who is this?", True)


def test_precision_makes_another_model_and_place_and_attention_do_not(copied: Path, tiny_folder: Path) -> None:
    one = content_key(identity_of(Hf(tiny_folder)))
    assert content_key(identity_of(Hf(copied, attention="eager"))) == one
    assert content_key(identity_of(Hf(copied, dtype="bfloat16"))) != one
    template = copied / "chat_template.jinja"
    template.write_text(template.read_text().replace("USER", "User"))
    assert content_key(identity_of(Hf(copied))) != one


# ---- what is wrong with a folder ---------------------------------------------------------------------------------
def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _own_code(folder: Path) -> None:
    edited(folder / "config.json", auto_map={"AutoModel": "modeling.Model"})


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _half_downloaded(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _no_processor(folder: Path) -> None:
    (folder / "processor_config.json").unlink()


def _no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def _text_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}USER: {{ m['content'][-1]['text'] }}{% endfor %}"
    )


def _blind_template(folder: Path) -> None:
    _text_template(folder)
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("USER:", "USER: <image>"))


def _endless_template(folder: Path) -> None:
    _text_template(folder)
    path = folder / "chat_template.jinja"
    loops = "".join(f"{{% for {name} in range(99999) %}}" for name in "abc") + "{% endfor %}" * 3
    path.write_text(loops + path.read_text())


def _growing_template(folder: Path) -> None:
    """A text that doubles forty times: a terabyte."""
    grown = (
        "{% set ns = namespace(text='ab') %}{% for i in range(40) %}{% set ns.text = ns.text ~ ns.text %}{% endfor %}"
    )
    (folder / "chat_template.jinja").write_text(grown + "{{ ns.text }}")


def _long_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for i in range(99999) %}USER: {% endfor %}")


def _million_layers(folder: Path) -> None:
    _settings_of_a_part(folder, num_hidden_layers=1_000_000)


def _small_vocabulary(folder: Path) -> None:
    edited(folder / "config.json", image_token_index=40_000, image_token_id=40_000)


def _other_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    word = next(entry for entry in vocabulary if entry[0] == "USER")
    vocabulary.append([*word])  # a number that the model has no row for
    word[0] = "unwritten"
    path.write_text(json.dumps(tokenizer))


def _no_patch_size(folder: Path) -> None:
    edited(folder / "processor_config.json", patch_size=None)


def _padding_outside(folder: Path) -> None:
    edited(folder / "tokenizer_config.json", pad_token="<padding>")


def _padding_with_pictures(folder: Path) -> None:
    edited(folder / "tokenizer_config.json", pad_token="<image>")


def _end_outside(folder: Path) -> None:
    edited(folder / "tokenizer_config.json", eos_token="<end>")


def _padding_of_config(folder: Path) -> None:
    _settings_of_a_part(folder, pad_token_id=40_000)


def _adapter_beside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def _settings_of_a_part(folder: Path, **fields: Any) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edited(folder / "config.json", text_config={**text, **fields})


def _quantized_part(folder: Path) -> None:
    _settings_of_a_part(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def _code_of_a_part(folder: Path) -> None:
    _settings_of_a_part(folder, auto_map={"AutoModel": "modeling.Model"})


def _kernel(folder: Path) -> None:
    _settings_of_a_part(folder, _attn_implementation="kernels-community/flash-attn2")


def _other_file(folder: Path) -> None:
    edited(folder / "config.json", transformers_weights="other.safetensors")


def _impossible(folder: Path) -> None:
    _settings_of_a_part(folder, num_attention_heads="many")


def _nested(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 200_000)


def _unknown_type(folder: Path) -> None:
    edited(folder / "config.json", model_type="clippy")


def _pickled_otherwise(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "consolidated.00.pth").touch()


def _leads_nowhere(folder: Path) -> None:
    """As in a snapshot of the hub's cache that was copied without what it links to."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/0123")


def _no_object(folder: Path) -> None:
    (folder / "config.json").write_text("null")


def _only_an_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def _cut_processor(folder: Path) -> None:
    path = folder / "processor_config.json"
    path.write_text(path.read_text()[:40])


def _cut_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text()[:400])


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _no_settings_of_tokenizer(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()


def _latin_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_bytes(path.read_bytes() + "é".encode("latin-1"))


def _deaf_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "USER: {% for c in messages[0]['content'] if c['type'] == 'image' %}<image>{% endfor %}"
    )


def _grey_means(folder: Path) -> None:
    path = folder / "processor_config.json"
    edited(path, image_processor={**json.loads(path.read_text())["image_processor"], "image_mean": [0.5]})


def _layer_outside(folder: Path) -> None:
    edited(folder / "config.json", vision_feature_layer=-50)


def _text_model(folder: Path) -> None:
    shutil.rmtree(folder)
    LlamaForCausalLM(LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                 vocab_size=8)).save_pretrained(folder)  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_config, r"no config\.json there; give a local Hugging Face model folder"),
        (_own_code, "config.json has an auto_map: the model brings Python code of its own, which is never run"),
        (_pickled, r"no \.safetensors weights there; pickled ones can run code and are not loaded"),
        (_pickled_otherwise, r"no \.safetensors weights there; pickled ones can run code and are not loaded"),
        (_half_downloaded, "names model-00002-of-00002.safetensors, which are not there: download them again"),
        (_no_processor, r"no processor_config\.json there; save the processor beside the model, or copy it"),
        (_no_template, r"the processor has no chat template; put chat_template\.jinja"),
        (_text_template, r"the chat template fails on a question \(ValueError: The total number of <image> tokens"),
        (_blind_template, r"the chat template writes 16 image tokens for a picture and 1 for none"),
        *(
            pytest.param(
                template,
                "the chat template does not end, or writes more than 100,000 characters for a question of 47: it",
                marks=marks,
            )
            for template, marks in (
                (_endless_template, [pytest.mark.slow]),
                (_growing_template, []),
                (_long_template, []),
            )
        ),
        (_million_layers, r"num_hidden_layers=1000000, and no model has more than 1000 layers: take config\.json from"),
        (_small_vocabulary, r"the image token's id 40000 is outside the vocabulary of \d+"),
        (_other_tokenizer, r"a question has token \d+, outside the vocabulary of \d+"),
        (
            _padding_outside,
            r"the padding token '<padding>' has the id \d+, outside the vocabulary of \d+: it was",
        ),
        (
            _adapter_beside,
            r"adapter_config\.json makes transformers apply an adapter .* remove adapter_config",
        ),
        (_no_patch_size, r"the processor fails on a question \(TypeError: .*\): its settings are incomplete"),
        (
            _padding_with_pictures,
            "the padding token '<image>' is the image token, so padded rows would show pictures; name",
        ),
        (_end_outside, r"the end token '<end>' has the id \d+, outside the vocabulary of \d+"),
        (_padding_of_config, r"config\.json names a padding token \(pad_token_id\) outside of the vocabulary"),
        (_quantized_part, r"config\.json has a quantization_config; take the model as it was before it was quantized"),
        (_code_of_a_part, "config.json has an auto_map: the model brings Python code of its own, which is never run"),
        (_kernel, "asks for the attention 'kernels-community/flash-attn2', which is code from the hub and never run"),
        (_other_file, "has transformers load 'other.safetensors'; call the weights model.safetensors and remove"),
        (
            _impossible,
            r"config\.json describes no llava that transformers \S+ can build \(.*num_attention_heads.*; take",
        ),
        (
            _leads_nowhere,
            r"model\.safetensors is a link to \.\./\.\./blobs/0123, where nothing is; copy the files them",
        ),
        (_no_object, r"config\.json holds None, not settings by name; download it again"),
        (
            _only_an_adapter,
            r"adapter_config\.json and no config\.json: an adapter without its model; merge the adapter",
        ),
        (_cut_processor, r"processor_config\.json is not JSON \(.*\); download it again"),
        (_cut_tokenizer, r"tokenizer\.json is not JSON \(.*\); download it again"),
        (_no_tokenizer, r"no tokenizer\.json there; copy it from where the model was published"),
        (_no_settings_of_tokenizer, r"no eos_token, .*; name it in tokenizer_config\.json, which is not there"),
        (_latin_template, r"chat_template\.jinja is not UTF-8 \(.*\); download it again"),
        (_deaf_template, "the chat template leaves out what is asked: two questions are one prompt; take the template"),
        (
            _grey_means,
            r"the processor fails on a question \(ValueError: mean must have 3 elements.*; take processor_config",
        ),
        (_layer_outside, r"vision_feature_layer=-50, and the vision tower has 2 layers: take config\.json from where"),
        (_nested, "config.json is not JSON"),
        (_unknown_type, "model type 'clippy' is none for images and text"),
        (_text_model, "model type 'llama' is none for images and text"),
    ],
)
def test_what_is_wrong_is_said(damage: Callable[[Path], None], message: str, copied: Path, tmp_path: Path) -> None:
    damage(copied)
    with pytest.raises(ValueError, match=message) as caught:
        Hf(copied)(tmp_path)
    assert str(copied) in str(caught.value)


def test_what_is_not_read_may_lead_nowhere(copied: Path, tmp_path: Path) -> None:
    (copied / "LICENSE.txt").symlink_to("../../blobs/0123")
    assert Hf(copied)(tmp_path) == copied


def test_a_class_without_a_part_is_named(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Llava, "projector", ("bridge",))
    with pytest.raises(ValueError, match="copied: LlavaForConditionalGeneration has no projector: looked for bridge"):
        Hf(copied)(tmp_path)


def test_weights_that_are_missing_are_not_made_up(copied: Path) -> None:
    """transformers fills them with random numbers and a warning."""
    path = copied / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "projector" not in name}
    save_file(kept, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"copied: \d weights are missing, such as model\.multi_modal_projector"):
        load(copied)


def test_an_adapter_is_never_applied_as_a_model_is_loaded(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is whatever else adds to a model: the parameters are compared with those of the configuration."""
    before = load(copied).model.state_dict()
    adapted = peft.get_peft_model(load(copied).model, peft.LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(str(copied))
    with pytest.raises(ValueError, match=r"copied: adapter_config\.json makes transformers apply an adapter"):
        load(copied)
    monkeypatch.setattr(loading, "_check_config", lambda _: None)
    with pytest.raises(ValueError, match=r"copied: \d+ parameters are not those of config\.json, such as .*base_layer"):
        load(copied)
    for path in copied.glob("adapter_*"):
        path.unlink()
    after = load(copied).model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "float16"}, "dtype='float16': use float32 or bfloat16; in float16 AdamW"),
        (
            {"attention": "flash_attention_2"},
            "attention='flash_attention_2': use sdpa, or eager for a model without it",
        ),
    ],
)
def test_a_setting_that_cannot_work_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hf(Path("x"), **fields)


@pytest.mark.slow
def test_the_precision_reaches_every_job(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generated: Path
) -> None:
    fields: dict[str, Any] = {"model": f"hf:path={copied},dtype=bfloat16", "study_dir": tmp_path / "study"}
    plan = validate_study(replace(PRESETS["smoke"][1], **fields), generated)
    monkeypatch.setattr(learn, "teach", lambda *_: None)
    monkeypatch.setattr(learn, "run_jobs", lambda *_: {})
    monkeypatch.delattr(Hf, "__call__")  # the model was looked at when the plan was made
    context = learn.learn_models(plan)
    assert (context.base, context.loading) == (copied, Loading("bfloat16"))


@pytest.mark.parametrize(
    ("said", "dtype"),
    [
        ({"dtype": "float16"}, "bfloat16"),
        ({"dtype": None, "torch_dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": None, "text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({"dtype": "float32"}, "float32"),
        ({"dtype": None}, "float32"),
        ({"dtype": None, "text_config": None}, "float32"),
    ],
)
def test_unless_told_a_model_is_in_what_it_was_published_in(said: dict[str, Any], dtype: str, copied: Path) -> None:
    edited(copied / "config.json", **said)
    assert Hf(copied).dtype == dtype
    assert Hf(copied, dtype="float32").dtype == "float32"
    assert replace(Hf(hub=HUB, revision=COMMIT), path=copied).dtype == dtype  # once it is downloaded
    assert Hf(hub=HUB, revision=COMMIT).dtype == Hf(copied / "none").dtype == ""


def test_a_template_that_writes_the_date_writes_the_same_one_every_day(copied: Path) -> None:
    """Else the prompts of a study would change at midnight."""
    path = copied / "chat_template.jinja"
    today = "{{ strftime_now('%d %b %Y') }} {{ strftime_now( \"%H:%M:%S.%f\" ) }}"
    path.write_text(f"{{% if strftime_now is defined %}}{today}{{% endif %}}{path.read_text()}")
    vlm = without_weights(copied)
    for written in (vlm.chat([vlm.family.turn("Who?", True)]), vlm._text("Who?", False)):
        assert written.startswith("26 Jul 2024 00:00:00.000000USER:")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # transformers leaves further templates open
def test_several_templates_write_the_same_date_too(copied: Path) -> None:
    path = copied / "chat_template.jinja"
    path.write_text(f"{{{{ strftime_now (format='%d %b %Y') }}}} {path.read_text()}")
    further = copied / "additional_chat_templates" / "rag.jinja"
    further.parent.mkdir()
    further.write_text("")
    vlm = without_weights(copied)
    assert vlm.chat([vlm.family.turn("Who?", True)]).startswith("26 Jul 2024 USER:")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tokenizer.json", {"truncation": {"max_length": 50, "direction": "Right", "strategy": "LongestFirst",
                                           "stride": 0}}),
        ("tokenizer.json", {"padding": {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
                                        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}}),
        ("tokenizer_config.json", {"max_length": 50, "truncation_strategy": "longest_first", "stride": 0}),
    ],
)  # fmt: skip
def test_a_tokenizer_that_was_saved_in_training_cuts_no_prompt(
    name: str, said: dict[str, Any], copied: Path, tiny_folder: Path
) -> None:
    """What a long question ends with would be lost, and nobody told."""
    edited(copied / name, **said)
    long = f"{SAMPLE} " * 5
    found, wanted = (without_weights(folder) for folder in (copied, tiny_folder))
    for shown in (True, False):
        assert found.prompt_ids(long, shown) == wanted.prompt_ids(long, shown)
        assert len(found.prompt_ids(long, shown)) > 64
        assert found.answer_ids(long, shown, SAMPLE) == wanted.answer_ids(long, shown, SAMPLE)


def test_a_configuration_that_is_none_has_no_precision(copied: Path) -> None:
    (copied / "config.json").write_text("[]")
    for reading in (Hf, without_weights):
        with pytest.raises(ValueError, match=rf"{copied}: config\.json holds \[\], not settings by name; download it"):
            reading(copied)


def test_a_part_with_an_attention_of_its_own_is_told_with_the_remedy(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true: Any = AutoModelForImageTextToText.from_config

    def mixed(*given: Any, **settings: Any) -> Any:
        model: Any = true(*given, **settings)
        model.model.vision_tower.config._attn_implementation = "eager"
        model.model.multi_modal_projector.config = object()  # which says nothing of attention
        return model

    monkeypatch.setattr(AutoModelForImageTextToText, "from_config", mixed)
    with pytest.raises(ValueError, match=r"the attention eager, not sdpa; write hf:path=FOLDER,attention=eager"):
        without_weights(copied, Loading())


def test_a_processor_that_transformers_lacks_is_the_one_of_the_model(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(copied / "processor_config.json", processor_class="NewestProcessor")
    assert type(load_processor(copied)).__name__ == "LlavaProcessor"
    monkeypatch.setattr(processing_auto.PROCESSOR_MAPPING, "get", lambda config, default: default)
    edited(copied / "tokenizer_config.json", processor_class=None)
    with pytest.raises(ValueError, match=r"its processor is a NewestProcessor, which transformers \S+ does not have"):
        load_processor(copied)


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, AttributeError])
def test_a_processor_that_takes_no_text_alone_leaves_it_to_its_tokenizer(error: type[Exception], tiny: VLM) -> None:
    class OfPictures:
        tokenizer = tiny.tokenizer

        def __call__(self, text: list[str]) -> Any:
            raise error("no picture")

    vlm = replace(tiny, processor=OfPictures())  # type: ignore[arg-type]
    assert vlm.processed(vlm.processor, "What?", [])["input_ids"].shape[0] == 1


def test_only_on_a_gpu_float32_products_are_computed_in_tf32(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting of the process: that of the CPU must not move with it, or merged adapters would have other bits."""
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: self)
    try:
        for device in ("cpu", "cuda:0"):
            load(copied, device)
            assert torch.backends.cuda.matmul.allow_tf32 == (device == "cuda:0")
            assert torch.backends.mkldnn.matmul.fp32_precision == "none"  # type: ignore[attr-defined]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


# ---- as users write it -------------------------------------------------------------------------------------------
def test_a_folder_or_a_name_on_the_hub_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert (
        plugin("base_models", "models/mine")
        == plugin("base_models", "hf:models/mine")
        == Hf(tmp_path / "models" / "mine")
    )
    assert plugin("base_models", "/no/such:place") == Hf(Path("/no/such:place"))
    assert plugin("base_models", f"{HUB}@{COMMIT}") == Hf(hub=HUB, revision=COMMIT)
    assert plugin("base_models", f"hf:hub={HUB},revision={COMMIT},dtype=bfloat16").dtype == "bfloat16"
    (tmp_path / "tiny").mkdir()
    assert plugin("base_models", "tiny") == Tiny()
    assert run.parse(["--base-model", "models/mine"]) == run.parse(["--model", "models/mine"]) != run.parse([])


@pytest.mark.parametrize(
    ("text", "message"),
    [(HUB, f"'{HUB}': no such folder; for a model on the hub pin its revision, write {HUB}@COMMIT"),
     ("tyni", "did you mean 'tiny'"), ("hf", "hf needs a folder, write hf:PATH or hf:hub=OWNER/NAME,revision=COMMIT")],
)  # fmt: skip
def test_what_is_no_model_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plugin("base_models", text)


def test_the_hub_is_asked_once_for_a_commit_and_no_pickles(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generated: Path
) -> None:
    asked: list[object] = []

    def download(*names: object, **settings: object) -> str:
        asked.append((names, settings))
        return str(copied)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    fields: dict[str, Any] = {"model": f"{HUB}@{COMMIT}", "study_dir": tmp_path / "study"}
    plan = validate_study(replace(PRESETS["smoke"][1], **fields), generated)
    assert plan.vanilla.base == content_key(identity_of(Hf(copied)))
    assert asked == [((HUB,), {"revision": COMMIT, "repo_type": "model", "allow_patterns": MODEL_FILES})]
    assert not {"*.bin", "*.pt", "*.py"} & set(MODEL_FILES)
