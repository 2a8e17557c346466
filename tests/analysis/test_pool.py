"""Several planted studies as one page: its numbers, what it says, and what it refuses to pool."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.pool import page
from analysis.pool.reading import studies
from analysis.pool.tables import readme
from study.core.files import read_json, write_json
from study.metrics.worlds import mean
from tests.helpers.planted import REFERENCE, VANILLA, Model, Planter

pytestmark = pytest.mark.slow

RATIO = 15
GAPS = (0.02, 0.05, 0.03, 0.06, 0.04)
"""How far the method `near` is from the references in each world; `twin` is the same model under another name."""
FAR = (0.41, 0.42, 0.40, 0.43, 0.44)
BACK = (0.7, 0.8, 0.9)
"""What is known of what was held out after the attack, of a model that hides it; of the references stays 0.3."""
OF_SEEDS = 0.005**2
"""The variance of the mean of two references that know 0.30 and 0.31; all else in a planted study is the same."""
TABLES = {"pool", "pool_differences", "pool_variance", "pool_worlds", "pool_studies"}


def missing(gap: float) -> Model:
    """A model that knows so much more than the references of everybody who had to be forgotten."""
    return Model(forget=REFERENCE.forget + gap, test=REFERENCE.test + gap)


def world(
    root: Path, number: int, models: Mapping[str, Model | None], *, seed: int = 0, attacked: Sequence[str] = (),
    **settings: Any,
) -> Path:  # fmt: skip
    """A finished study on one world, with two references; a model that is None failed. Baselines are attacked if any
    of the methods is."""
    planter = Planter(root)
    benchmark, asked = {"type": "Synthetic", "seed": number}, {"trials": 1, "reference_seeds": 2, "seed": seed}
    planter.study(
        list(models), [RATIO], **{"benchmark": benchmark, "fingerprint": f"data {number}", **asked, **settings}
    )
    planter.yardsticks(RATIO, attacked=bool(attacked))
    second = planter.trial("none", RATIO, Model(0.31, 0.31), kind="reference", seed=1, report=True)
    if attacked:
        planter.attack(second, Model(0.31, 0.31, back=0.31))
    winners = {}
    for method, model in models.items():
        state, mark = ("failed" if model is None else "complete"), float(number)  # a key for each world
        keys = [planter.trial(method, RATIO, model, seed=n, state=state, report=True, world=mark) for n in range(2)]
        planter.proposal(method, 0, RATIO, keys[0], default=True)
        for key in keys if model and method in attacked else ():
            planter.attack(key, model or VANILLA)
        winners[method] = {} if model is None else {str(RATIO): {"trials": keys}}
    write_json(root / "winners.json", winners)
    return root


def methods(number: int) -> dict[str, Model | None]:
    return {"near": missing(GAPS[number]), "twin": missing(GAPS[number]), "far": missing(FAR[number])}


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five worlds; read only."""
    top = tmp_path_factory.mktemp("pool")
    return [world(top / f"{number}", number, methods(number)) for number in range(5)]


@pytest.fixture(scope="module")
def built(five: list[Path]) -> Path:
    """The page of all five, where the command line writes it."""
    assert main(["--pool", *map(str, five)]) == 0
    return five[0].parent / "pool" / "pool.html"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three worlds under attack: of one method ever more is back, of another as little as of the
    references, and the winner of the third was not attacked."""
    top = tmp_path_factory.mktemp("attacked")
    roots = []
    for number, back in enumerate(BACK):
        models = {"hiding": Model(back=back), "gone": Model(), "spared": Model()}
        roots.append(world(top / f"{number}", number, models, attacked=("hiding", "gone")))
    return page.build(roots, top / "out")


def table(page: Path, name: str = "pool") -> pd.DataFrame:
    return pd.read_csv(page.parent / "tables" / f"{name}.csv")


def text(page: Path) -> str:
    """The page as it is read."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8")))


def pooled(roots: Sequence[Path], tmp_path: Path) -> Path:
    return page.build(roots, tmp_path / "out")


def test_files_are_there_and_the_same_again(built: Path, five: list[Path]) -> None:
    files = {path.relative_to(built.parent).as_posix(): path.read_bytes() for path in built.parent.rglob("*.*")}
    ends = {f"tables/{name}.{end}" for name in TABLES for end in ("csv", "tex")}
    figure = {"figures/pool.png", "figures/pool.pdf", "tables/figure_pool.csv"}
    assert set(files) == {"pool.html", "tables/pool.md"} | ends | figure
    page.build(five, built.parent)
    assert {path.relative_to(built.parent).as_posix(): path.read_bytes() for path in built.parent.rglob("*.*")} == files
    assert not re.search(r"https?://|<script [^>]*src|<link|@import|url\(", built.read_text(encoding="utf-8"))


def test_measures_are_means_over_worlds(built: Path) -> None:
    found = table(built).set_index("method")
    for method, gaps in (("near", GAPS), ("twin", GAPS), ("far", FAR)):
        # One of the two references knows 0.01 more: the gap to both together is the mean of the gaps to each.
        wanted = mean([(gap + abs(gap - 0.01)) / 2 for gap in gaps], top=1.0)
        line = found.loc[method]
        assert tuple(line[["forget_gap", "forget_gap_low", "forget_gap_high"]]) == pytest.approx(wanted)
        assert line["distance"] == pytest.approx(wanted.mean)
        assert (line["utility"], line["worlds"], line["studies"], line["collapsed"]) == (1.0, 5, 5, 0)
        assert line["revision"] == "0123abc"


def test_twins_tie_and_the_far_one_is_told_apart(built: Path) -> None:
    pairs = table(built, "pool_differences").set_index(["near", "far"])
    assert list(pairs.loc[("near", "twin"), ["farther", "p", "survives"]]) == [0.0, 1.0, False]
    assert pairs.loc[("near", "far"), "survives"]
    assert pairs.loc[("twin", "far"), "survives"]
    found = table(built).set_index("method")
    assert list(found.loc[["near", "twin"], "rank_1"]) == pytest.approx([0.5, 0.5], abs=0.02)
    assert found.loc["far", "rank_3"] == 1.0
    assert found["nearer_than"].fillna("").to_dict() == {"near": "far", "twin": "far", "far": ""}
    said = text(built)
    assert "At forget ratio 15 %, over 5 worlds, the methods closest to the ideal point cannot be told apart" in said
    assert "near and twin" in said
    assert "2 of 3 differences between two methods survive" in said


def test_a_single_nearest_method_is_named(five: list[Path], tmp_path: Path) -> None:
    roots = [world(tmp_path / f"{n}", n, {"near": missing(GAPS[n]), "far": missing(FAR[n])}) for n in range(3)]
    assert "near comes closest to the ideal point and is told apart from all others" in text(pooled(roots, tmp_path))


def test_nobody_is_named_if_nothing_improves_on_vanilla(tmp_path: Path) -> None:
    roots = [world(tmp_path / f"{n}", n, {"idle": VANILLA}) for n in range(3)]
    assert "over 3 worlds, no method improves on vanilla: idle" in text(pooled(roots, tmp_path))


def test_the_noise_floor_and_the_keys_of_every_world_are_there(built: Path, five: list[Path]) -> None:
    assert table(built, "pool_worlds")["noise_floor"].to_list() == pytest.approx([0.01] * 5)
    each = table(built, "pool_studies")
    assert len(each) == 15
    html = built.read_text(encoding="utf-8")
    for study, key in zip(each["study"], each["key"], strict=True):
        link = f"../{Path(study).name}/trials/{key}/trial.json"
        assert f'href="{link}"' in html
        assert (built.parent / link).is_file()


def test_two_worlds_give_numbers_without_interval_or_rank(five: list[Path], tmp_path: Path) -> None:
    out = pooled(five[:2], tmp_path)
    found = table(out)
    assert found["distance"].notna().all()
    assert found[["distance_low", "distance_high"]].isna().all(axis=None)
    assert not [name for name in map(str, found) if name.startswith("rank_")]
    assert "fewer than 3 worlds have no interval" in text(out)
    assert table(out, "pool_worlds")[["agreed", "contradicted"]].isna().all(axis=None)


def test_studies_of_one_world_count_once_and_tell_of_the_search(five: list[Path], tmp_path: Path) -> None:
    again = world(tmp_path / "again", 0, {**methods(0), "far": missing(0.61)}, seed=1)
    found = table(pooled([*five[:3], again], tmp_path)).set_index("method")
    assert list(found.loc["far", ["worlds", "studies"]]) == [3, 4]
    gaps = [(FAR[0] + 0.61) / 2, FAR[1], FAR[2]]
    assert found.loc["far", "distance"] == pytest.approx(sum(gaps) / 3 - 0.005)
    parts = table(tmp_path / "out" / "pool.html", "pool_variance").set_index("method")
    assert parts.loc["far", "search"] == pytest.approx((0.61 - FAR[0]) ** 2 / 2 - OF_SEEDS)
    assert parts.loc["near", "search"] == 0.0


def test_where_each_world_was_searched_once_it_is_said_what_cannot_be_separated(built: Path) -> None:
    parts = table(built, "pool_variance").set_index("method")
    assert parts["search"].isna().all()
    assert list(parts.loc["far", ["people", "seeds"]]) == pytest.approx([0.0, OF_SEEDS])
    assert parts.loc["far", ["seeds", "world"]].sum() == pytest.approx(pd.Series(FAR).var())
    assert "cannot be separated from what the world adds" in text(built)
    assert "world and search" in text(built)


def test_a_method_without_a_winner_in_some_world_is_not_ranked(five: list[Path], tmp_path: Path) -> None:
    lost = world(tmp_path / "lost", 7, {**methods(0), "far": None})
    out = pooled([*five[:3], lost], tmp_path)
    found = table(out)
    assert found["method"].to_list()[-1] == "far"
    assert found.set_index("method")["ranked"].to_dict() == {"near": True, "twin": True, "far": False}
    assert "far has no winner in every world at 15 % (3 of 4)" in text(out)


def test_what_comes_back_is_pooled_over_worlds(attacked: Path) -> None:
    found = table(attacked).set_index("method")
    # The probability after the attack minus 0.3 before; of the references nothing comes back.
    wanted = mean([back - 0.3 for back in BACK])
    assert tuple(found.loc["hiding", ["recovery", "recovery_low", "recovery_high"]]) == pytest.approx(wanted)
    assert list(found.loc["hiding", ["came_back", "attacked"]]) == [3, 3]
    assert list(found.loc["gone", ["recovery", "came_back", "attacked"]]) == [0.0, 0, 3]
    assert found.loc["spared", "attacked"] == 0
    assert found["recovery"].isna()["spared"]
    said = "something came back of hiding in every study, of gone in none."
    assert said in text(attacked)
    each = table(attacked, "pool_studies").set_index(["method", "world"])
    assert each.loc[("spared", "seed 0"), "verdict"] == "not attacked"
    assert each.loc[("hiding", "seed 1"), "recovery"] == pytest.approx(0.5)
    shown = (attacked.parent / "tables" / "pool.md").read_text(encoding="utf-8")
    assert re.search(r"^\| 15 \| spared \| .* \| n/a \| n/a \| [0-9.]+ \|$", shown, re.MULTILINE)
    assert re.search(r"^\| 15 \| hiding \| .* \| 3 of 3 \|", shown, re.MULTILINE)


def test_a_study_that_says_the_opposite_is_contradicted_by_the_others(five: list[Path], tmp_path: Path) -> None:
    wrong = world(tmp_path / "wrong", 9, {"near": missing(0.3), "twin": missing(0.3), "far": missing(0.02)})
    told = table(pooled([*five, wrong], tmp_path), "pool_worlds").set_index("study")
    assert list(told.loc[str(wrong), ["statements", "contradicted", "agreed"]]) == [2, 2, 0]
    assert list(told.loc[str(five[0]), ["statements", "contradicted"]]) == [2, 0]
    assert "Contradicted: 2 of 12 statements." in text(tmp_path / "out" / "pool.html")


def test_the_ranking_for_readme_is_that_of_the_table(built: Path) -> None:
    shown = (built.parent / "tables" / "pool.md").read_text(encoding="utf-8")
    assert shown == readme(table(built))
    assert "5 worlds" in shown
    assert "revision `0123abc`" in shown
    assert len(re.findall(r"^\| 15 \| (near|twin|far) \|", shown, re.MULTILINE)) == 3


def change(root: Path, tmp_path: Path, **settings: Any) -> Path:
    """A copy of a study with other settings."""
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    record = read_json(copy / "study.json")
    write_json(copy / "study.json", {**record, "settings": {**record["settings"], **settings}})
    return copy


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"confirm_seeds": 0}, "confirm_seeds differ"),
        ({"benchmark": {"type": "Synthetic", "seed": 1, "people": 9}}, "benchmark.people differ"),
        ({"benchmark": {"type": "Synthetic", "seed": 0}}, "fingerprint differ"),
        ({"goal": "full", "model": "other"}, "goal, model differ"),
    ],
)
def test_studies_of_other_settings_are_refused(
    five: list[Path], tmp_path: Path, settings: dict[str, Any], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = change(five[1], tmp_path, **settings)
    assert main(["--pool", str(five[0]), str(other), "--to", str(tmp_path / "out")]) == 2
    assert f"{other} is another study than {five[0]}: {named}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_seeds_may_differ(five: list[Path], tmp_path: Path) -> None:
    assert len(studies([five[0], change(five[1], tmp_path, seed=4)])) == 2


@pytest.mark.parametrize(
    ("gone", "lacks"),
    [
        ("winners.json", "no winners selected"),
        ("search/far/0000.json", "0 of 1 trials of far done"),
        ("trials/*/rows/report.parquet", "models of vanilla scored at 15 %"),
    ],
)
def test_an_unfinished_study_is_refused(five: list[Path], tmp_path: Path, gone: str, lacks: str) -> None:
    copy = change(five[1], tmp_path)
    for path in copy.glob(gone):
        path.unlink()
    with pytest.raises(ValueError, match=f"copy is unfinished: .*{lacks}; run the study again"):
        studies([five[0], copy])


def test_a_winner_that_lacks_a_seed_is_refused(five: list[Path], tmp_path: Path) -> None:
    copy = change(five[1], tmp_path)
    key = read_json(copy / "winners.json")["far"]["15"]["trials"][1]
    shutil.rmtree(copy / "trials" / key)
    with pytest.raises(ValueError, match="1 of 2 seeds of the winner of far scored at 15 %"):
        studies([copy])


def test_what_is_no_study_or_named_twice_is_refused(five: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a study"):
        studies([five[0], tmp_path])
    with pytest.raises(ValueError, match="named twice"):
        studies([five[0], five[0] / ".." / five[0].name])
    with pytest.raises(ValueError, match="is a study itself"):
        page.build(five, five[0])


@pytest.mark.parametrize("arguments", [[], ["a", "--pool", "b"], ["a", "--to", "b"], ["--pool", "a", "--cold", "b"]])
def test_arguments_that_do_not_go_together_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
