"""A document with all figures and tables of a study, to be compiled or copied from."""

from __future__ import annotations

from pathlib import Path

from analysis.paper.figures import Drawn, caption, figures
from analysis.paper.latex import Floating, escaped
from analysis.paper.tables import tables
from analysis.study_folder import StudyResults
from analysis.style import COLUMN, TEXT
from analysis.tables import keep

HEAD = r"""\documentclass[twocolumn,10pt]{article}
\usepackage[textwidth=%(text)sin,columnsep=%(between)sin,textheight=9in]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\graphicspath{{figures/}}
\setcounter{topnumber}{9}\setcounter{dbltopnumber}{9}
\renewcommand{\topfraction}{0.95}\renewcommand{\dbltopfraction}{0.95}
\renewcommand{\floatpagefraction}{0.6}\renewcommand{\dblfloatpagefraction}{0.6}
\begin{document}
\title{%(title)s}\author{}\date{}\maketitle
"""


def build(study: StudyResults) -> Path:
    """Bring `report/paper/` up to date: `paper.tex`, and what it includes; its path. Files of before do not stay."""
    folder = study.folder.paper.parent
    drawn, shown = figures(study), tables(study)
    kept = {path for one in drawn for path in one.write(folder, study.methods)}
    for one in drawn:
        kept.add(_kept(folder / "captions" / f"{one.plot.name}.tex", caption(study, one.plot) + "\n"))
    for table in shown:
        kept.add(_kept(folder / "tables" / f"{table.name}.tex", table.tex()))
    page = _kept(study.folder.paper, document(study.name, drawn, shown))
    for path in {path for kind in ("figures", "captions", "tables") for path in (folder / kind).glob("*")} - kept:
        path.unlink()
    return page


def document(name: str, drawn: list[Drawn], shown: list[Floating]) -> str:
    """The text of the document: every figure in its narrowest form, every table."""
    values = {"text": f"{TEXT:g}", "between": f"{TEXT - 2 * COLUMN:g}", "title": escaped(name)}
    parts = [*map(_figure, drawn), *(f"\\input{{tables/{table.name}}}" for table in shown)]
    return HEAD % values + "\n".join([*parts, r"\end{document}", ""])


def _figure(one: Drawn) -> str:
    narrow = min(one.widths) == COLUMN
    kind, width = ("figure", "column") if narrow else ("figure*", "text")
    return (
        f"\\begin{{{kind}}}[t]\n\\centering\n\\includegraphics{{{one.plot.name}_{width}}}\n"
        f"\\caption{{\\protect\\input{{captions/{one.plot.name}}}}}\n\\label{{fig:{one.plot.name}}}\n\\end{{{kind}}}"
    )


def _kept(path: Path, text: str) -> Path:
    keep(path, text)
    return path
