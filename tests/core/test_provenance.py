"""What computes a result is named: the code, its libraries, and the machine."""

import os
import sys
from pathlib import Path

import pytest

from study.core import plugins, provenance
from study.core.provenance import PACKAGES, code_of, cpu, revision, versions
from tests import ROOT


def test_the_processor_is_named_where_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PROCESSORS", tmp_path / "cpuinfo")
    assert cpu.__wrapped__()  # another system says it elsewhere
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus 3: fast\n\nmodel name\t: Abacus 4\n")
    assert cpu.__wrapped__() == "Abacus 3: fast"


def test_a_revision_says_whether_files_differ_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(ROOT.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # such as a key that commits are signed with
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", "one")
    assert revision.__wrapped__() == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("two")
    assert revision.__wrapped__() == git("rev-parse", "HEAD") + "+"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision.__wrapped__() == ""


def test_versions_are_those_of_all_libraries_that_matter() -> None:
    assert set(versions()) == {"python", *PACKAGES}


SOURCES = {
    "contracts.py": "class Method: ...",
    "model/vlm.py": "",
    "stages/plan.py": "",
    "methods/vkd.py": "from study.methods._saliency import masks\n\n\nclass VKD(Method): ...",
    "methods/npo.py": "class NPO(Method): ...",
    "methods/_saliency.py": "from study.methods._views import views",
    "methods/_views.py": "",
    "methods/_neurons.py": "",
    "attacks/swap_back.py": "class SwapBack: ...",
    "attacks/chain.py": "class Chain: ...",
}
VKD = {"type": "VKD", "schedule": {"type": "Schedule", "steps": 3}}
CHAIN = {"type": "Chain", "links": [{"type": "SwapBack"}]}


@pytest.mark.parametrize(
    ("settings", "by"),
    [
        (None, {"contracts.py", "model/vlm.py"}),
        (VKD, {"contracts.py", "model/vlm.py", "methods/vkd.py", "methods/_saliency.py", "methods/_views.py"}),
        (CHAIN, {"contracts.py", "model/vlm.py", "attacks/swap_back.py", "attacks/chain.py"}),
    ],
)
def test_the_code_of_a_result_is_all_that_computes_it_and_nothing_else(
    settings: object, by: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setattr(provenance, "_code_of", provenance._code_of.__wrapped__)
    monkeypatch.setattr(provenance, "ROOMS", ("contracts.py", "model"))
    own = {tmp_path / "study" / name for name in SOURCES if name.startswith(("methods", "attacks"))}
    monkeypatch.setattr(provenance, "_plugins", lambda: own)
    for name, text in SOURCES.items():
        (tmp_path / "study" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "study" / name).write_text(text)
    before = code_of(settings)
    changing = set()
    for name, text in SOURCES.items():
        path = tmp_path / "study" / name
        path.write_text(f"{text}\n")
        if code_of(settings) != before:
            changing.add(name)
        path.write_text(text)
    assert changing == by


def test_the_rooms_that_compute_are_there() -> None:
    assert all((ROOT / "study" / room).exists() for room in provenance.ROOMS)
    assert {"base_models", "benchmarks"} <= set(provenance.ROOMS)  # they make the model, and what it is asked


def test_plug_ins_of_other_packages_have_code_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "elsewhere"
    (package / "methods").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    plugins.use([str(package)])
    monkeypatch.setattr(provenance, "_code_of", provenance._code_of.__wrapped__)
    found = set()
    for text in ("class Elsewhere: ...", "class Elsewhere: pass"):
        (package / "methods" / "elsewhere.py").write_text(text)
        found.add(code_of({"type": "Elsewhere"}))
    assert len({*found, code_of(None)}) == 3
