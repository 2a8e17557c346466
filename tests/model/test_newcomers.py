"""Families that no file describes: what the general one makes of them, and what the table in the docs says."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Mistral4Config, Mistral4ForCausalLM
from transformers.utils.import_utils import is_torchvision_available

from study.attacks.adversarial_image import _Canvas
from study.core.errors import Refused
from study.core.files import read_json, write_json
from study.data.benchmark import Benchmark
from study.data.picture import Picture
from study.evaluation.sampling import sampled
from study.experiment.smoke_test import of_nobody
from study.methods._features import apart
from study.model.families import Family
from study.model.families._processors import VISION
from study.model.families._sides import SIDE
from study.model.flop_counter import counted
from study.model.loading import load, without_weights
from study.model.packing import Group, Prompt, batched, logits, pack
from study.model.vision import joined, patches_counted, pixels_from
from study.model.vlm import VLM
from tests import ROOT
from tests.cost import families
from tests.helpers.families import text_sizes
from tests.helpers.newcomers import NEWCOMERS, any_shape, can_be_made, newcomer_folder
from tests.helpers.newcomers.making import pictures
from tests.helpers.study_path import refused, walk

CITY = Prompt("Where does this person live?", ("Lisbon", "Oslo"))
JOB = Prompt("What is the job of this person?", ("baker",))
HOBBY = Prompt("What is the hobby of this person?", ("chess",))
WALKED = ("qwen3_vl", "internvl", "gemma4", "qwen3_5")
"""Families that go through the steps of a study here: a second way into the LLM, tiles, capped logits, recurrence."""
REFUSED = ("blip2", "florence2", "chameleon", "shieldgemma2")
"""Families that cannot be studied, each for a reason of its own, which is told at once."""
OTHERS = tuple(name for name in NEWCOMERS if name not in (*REFUSED, *WALKED))
"""What these show of the one description that serves all of them, `WALKED` show too: CI looks at their lines."""
IN_TABLE = [
    *REFUSED,
    *(pytest.param(name, marks=pytest.mark.slow) for name in WALKED),
    *(pytest.param(name, marks=[pytest.mark.slow, pytest.mark.combinations]) for name in OTHERS),
]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""Of numpy, about the image processor of GLM."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("newcomers")


def made(name: str, folders: Path) -> Path:
    return folders / name if (folders / name).exists() else newcomer_folder(name, folders)


def changed_picture() -> Picture:
    file = io.BytesIO()
    Image.new("RGB", (40, 60), (200, 30, 90)).save(file, "PNG")
    return Picture(file.getvalue(), "a red one")


def loaded(name: str, folders: Path) -> VLM:
    return load(made(name, folders))


# ---- the table -----------------------------------------------------------------------------------------------------
def test_the_page_has_the_table_of_what_was_found() -> None:
    page, found = families.PAGE.read_text(encoding="utf-8"), families.read()
    assert families.written(page, found) == page
    assert tuple(found) == NEWCOMERS
    running = sum(what == families.RUNS for what in found.values())
    assert f"[{running} of the {len(found)} families]" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", IN_TABLE)
def test_a_family_is_what_the_table_says(name: str, folders: Path) -> None:
    if not can_be_made(name) or families.read()[name] == families.UNTRIED:
        pytest.skip("what it needs is not installed, or it is too large")
    found = refused(name, made(name, folders)) or families.RUNS
    assert found == families.read()[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", WALKED)
def test_a_family_goes_through_a_study(name: str, folders: Path, benchmark: Benchmark, tmp_path: Path) -> None:
    walk(name, made(name, folders), benchmark, tmp_path)


# ---- several ways into the LLM -------------------------------------------------------------------------------------
def test_features_are_all_that_the_llm_is_given(folders: Path) -> None:
    """A change of what only the deepstack says is a distance to VKD."""
    vlm = loaded("qwen3_vl", folders)
    picture = of_nobody().picture
    assert picture is not None
    with torch.no_grad():
        before = vlm.features(vlm.pixels([picture]))
        assert before.projected.shape == (1, vlm.image_tokens, 3 * 32)  # what the merger says, and two of the deepstack
        deepstack = [p for name, p in vlm.trainable(("projector",)).items() if "deepstack_merger_list.1" in name]
        for weight in deepstack:
            weight.mul_(0.5)
        after = vlm.features(vlm.pixels([picture]))
    assert deepstack
    assert float(apart(after, before, "projector", "mse")) > 0
    assert torch.equal(after.projected[..., :64], before.projected[..., :64])


def test_a_projector_in_pieces_is_one_part(folders: Path) -> None:
    vlm = loaded("glm4v", folders)
    parts = {name: vlm.part_of(name) for name in vlm.tensors()}
    of = {part: {name for name, its in parts.items() if its == part} for part in ("vision", "projector", "llm")}
    assert {name.split(".")[2] for name in of["projector"]} == {"merger", "downsample"}
    assert {name.split(".")[1] for name in of["vision"]} == {"visual"}
    assert {name.split(".")[1] for name in of["llm"]} <= {"language_model", "weight"}


def test_capped_logits_are_the_models_own(folders: Path) -> None:
    vlm = loaded("gemma4", folders)
    vlm.model.config.get_text_config().final_logit_softcapping = 0.5
    with torch.no_grad():
        assert float(logits(vlm, pack(vlm, [of_nobody()])).abs().max()) <= 0.5


# ---- layers that no mask reaches -----------------------------------------------------------------------------------
def test_a_question_is_not_changed_by_another_in_a_recurrent_model(folders: Path) -> None:
    vlm = loaded("qwen3_5", folders)
    assert not vlm.packs
    picture = of_nobody().picture
    with torch.no_grad():
        one, other = (logits(vlm, pack(vlm, [Group(picture, (first, CITY))])) for first in (JOB, HOBBY))
    answers = len(pack(vlm, [Group(picture, (CITY,))]).target)
    torch.testing.assert_close(one[-answers:], other[-answers:], rtol=0, atol=1e-5)
    assert one.shape != other.shape or float((one[:-answers] - other[:-answers]).abs().max()) > 1e-3


def test_layers_that_pick_blocks_of_a_row_are_given_one_answer_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of MiniMax-M3, with the image processor of Qwen2-VL, which makes the same patches without torchvision."""
    monkeypatch.setattr(any_shape, "pictures", lambda _kind, **settings: pictures("Qwen2VL", **settings))
    folder = newcomer_folder("minimax_m3_vl", tmp_path)
    vlm = load(folder)
    assert vlm.family.recurrent(vlm.model.config) == ("minimax_m3_sparse",)
    assert not vlm.packs
    assert refused("minimax_m3_vl", folder) == ""


def test_windows_of_layers_with_convolutions_are_told_by_kind() -> None:
    """Of Inkling: masks by kind, and none for convolutions, where no token of a row is left out."""
    text = SimpleNamespace(layer_types=["hybrid", "hybrid_sliding"], sliding_window=2)
    config: Any = SimpleNamespace(get_text_config=lambda: text)
    positions = torch.arange(4)[None]
    found = Family().masks(config, torch.ones(1, 1, 4, 4, dtype=torch.bool).tril(), positions, positions)
    assert isinstance(found, dict)
    assert found["linear_attention"] is None
    seen = {kind: mask.sum(-1).flatten().tolist() for kind, mask in found.items() if mask is not None}
    assert seen == {"full_attention": [1, 2, 3, 4], "sliding_attention": [1, 2, 2, 2]}


def test_rows_of_a_recurrent_model_are_counted_where_batches_are_cut(folders: Path) -> None:
    vlm, picture = loaded("qwen3_5", folders), of_nobody().picture
    groups = [Group(picture, (CITY, JOB))] * 4
    longest = pack(vlm, groups[:1]).input_ids.shape[1]
    cut = list(batched(vlm, groups, tokens=6 * longest))
    assert [len(some) for some in cut] == [2, 2]
    assert [len(pack(vlm, some).input_ids) for some in cut] == [6, 6]


@pytest.mark.slow
def test_sampled_replies_of_a_recurrent_model_do_not_depend_on_company(folders: Path, benchmark: Benchmark) -> None:
    vlm = loaded("lfm2_vl" if is_torchvision_available() else "qwen3_5", folders)
    questions = [q for q in benchmark.split(5).questions if q.task == "cloze"][:3]
    together = sampled(vlm, questions, 2, seed=1)
    assert together == {q.id: sampled(vlm, [q], 2, seed=1)[q.id] for q in questions}


# ---- pictures of one size ------------------------------------------------------------------------------------------
def test_a_picture_is_one_and_its_side_whole_patches() -> None:
    thumbs: Any = SimpleNamespace(vision_input_type="thumb+tile", tile_size=448)
    Family().keep_whole(thumbs)
    assert thumbs.vision_input_type == "thumb"
    vision: Any = SimpleNamespace(vision_config=SimpleNamespace())
    cut_as_it_is = SimpleNamespace(model_input_names=["image_grid_thw"], size={"height": 40, "width": 40})
    assert Family().side(cut_as_it_is, vision) == 360
    tokens = SimpleNamespace(patch_size=14, merge_size=2, min_image_tokens=16, max_image_tokens=8000)
    assert Family().side(tokens, vision) == SIDE
    tokens.max_image_tokens = 100
    assert Family().side(tokens, vision) == 10 * 28


# ---- what else a model is told, and how it takes pictures -----------------------------------------------------------
def test_tokens_are_marked_as_the_processor_marks_them(folders: Path) -> None:
    """A picture and its frame, for Ernie's vision experts; a prompt without a picture has none."""
    vlm = loaded("ernie4_5_vl_moe", folders)
    shown, plain = (torch.tensor([vlm.prompt_ids("What?", pictured)]) for pictured in (True, False))
    (marked,) = vlm.marks(shown).values()
    assert int(marked.sum()) == vlm.image_tokens + 2
    assert not any(mark.any() for mark in vlm.marks(plain).values())
    assert loaded("internvl", folders).marks(shown) == {}


def test_a_token_is_as_far_from_its_root_as_if_it_were_asked_alone(folders: Path) -> None:
    """Whatever its positions say: windows count tokens (Cohere Compass)."""
    vlm = loaded("cohere_compass", folders)
    picture = of_nobody().picture
    together = pack(vlm, [Group(picture, (CITY, JOB))])
    for prompt, (row, last, after) in zip((CITY, JOB), together.prompts.tolist(), strict=True):
        alone = len(vlm.prompt_ids(prompt.text, True))
        assert int(together.depth[row, last]) + 1 == alone > after


def test_pictures_side_by_side_are_told_apart_and_counted(folders: Path) -> None:
    vlm = loaded("minicpmv4_6", folders)
    pictures = [of_nobody().picture, changed_picture()]
    pixels = vlm.pixels([picture for picture in pictures if picture is not None])
    assert len(pixels) == 2
    assert pixels.inputs(torch.float32)["pixel_values"].shape[0] == 1
    with torch.no_grad(), counted(vlm) as work:
        both, second = vlm.features(pixels), vlm.features(pixels[1:])
    torch.testing.assert_close(both.projected[1:], second.projected, rtol=0, atol=1e-5)
    assert float((both.projected[0] - both.projected[1]).abs().max()) > 1e-3
    assert work.images == 3


def test_patches_that_are_counted_through_all_pictures_are_told_apart() -> None:
    """As the processor of Molmo 2 counts them: three pictures of four patches, of which two places name none."""
    one = torch.tensor([[0, 1], [2, -1], [-1, 3]], dtype=torch.int32)
    through = torch.cat([torch.where(one < 0, one, one + 4 * i) for i in range(3)])
    assert patches_counted(through[:6]) == 4
    made = {"values": torch.rand(12, 5), "places": through}
    pixels = pixels_from(made, 3, made, counted={"places": 4, "elsewhere": 4})
    assert all(torch.equal(picture.tensors["places"][0], one) for picture in pixels.apart())
    assert torch.equal(pixels.inputs(torch.float32)["places"], through)
    assert torch.equal(joined([pixels[2:], pixels[:1]]).inputs(torch.float32)["places"], through[:6])
    for other in (torch.cat([one, one]), through[:6].float(), through[:3], torch.tensor([[0, 1], [4, 6]]), [0, 4]):
        assert patches_counted(other) == 0
    assert patches_counted(torch.tensor([[0, -1], [4, 3]])) == 0  # other places name none


def test_a_tower_of_videos_is_no_projector(folders: Path) -> None:
    vlm = loaded("video_llava", folders)
    assert {name.split(".")[1] for name in vlm.trainable(("projector",))} == {"multi_modal_projector"}


def test_pictures_that_are_shown_twice_are_not_attacked_in_one_place(folders: Path) -> None:
    with pytest.raises(Refused, match="as pixel_values and as high_res_pixel_values"):
        _Canvas(loaded("deepseek_vl_hybrid", folders))


# ---- what is missing is named --------------------------------------------------------------------------------------
def test_an_image_processor_that_needs_torchvision_names_the_extra(folders: Path, tmp_path: Path) -> None:
    if is_torchvision_available():
        pytest.skip("nothing is missing")
    folder = newcomer_folder("internvl", tmp_path)
    settings = read_json(folder / "processor_config.json")
    settings["image_processor"]["image_processor_type"] = "Llama4ImageProcessor"  # has no form without it
    write_json(folder / "processor_config.json", settings)
    with pytest.raises(ValueError, match="this model's pictures need torchvision") as raised:
        load(folder)
    assert VISION in str(raised.value)


def test_a_part_of_a_larger_model_is_named(tmp_path: Path) -> None:
    """Qwen-Omni as published: what sees and speaks is inside a model that also has a voice."""
    folder = newcomer_folder("qwen2_5_omni_thinker", tmp_path)
    thinker = read_json(folder / "config.json")
    write_json(folder / "config.json", {"model_type": "qwen2_5_omni", "thinker_config": thinker})
    with pytest.raises(ValueError, match="'qwen2_5_omni' is none for images and text") as raised:
        without_weights(folder)
    assert "its part thinker is one (qwen2_5_omni_thinker)" in str(raised.value)
    assert "save model.thinker and the processor" in str(raised.value)


def test_a_model_for_text_alone_is_called_so(folders: Path) -> None:
    """transformers lists Mistral 4 among the models for images and text; its text model alone is one without."""
    words = loaded("internvl", folders).tokenizer
    text = Mistral4Config(**text_sizes(words, n_routed_experts=2, moe_intermediate_size=8))
    with pytest.raises(ValueError, match="Mistral4ForCausalLM is for text alone"), torch.device("meta"):
        Family().parts(Mistral4ForCausalLM(text))


def test_a_video_processor_is_left_out(folders: Path) -> None:
    """As a published folder has it; its settings stay in the folder, and the rest is the stock class."""
    folder = made("qwen3_vl", folders)
    assert "video_processor" in read_json(folder / "processor_config.json")
    processor: Any = load(folder).processor
    assert type(processor).__name__ == "Qwen3VLProcessor"
    assert processor.get_attributes() == ["image_processor", "tokenizer"]
