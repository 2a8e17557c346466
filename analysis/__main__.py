"""`mus report runs/<study>`: rebuild the report of a study from its folder; `--pool` sums up several."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis import report
from study.core.layout import StudyFolder


def main(arguments: list[str] | None = None) -> int:
    """Build the report and print its path. Returns 0, or 2 if a folder is not a study or a file in it is damaged."""
    parser = argparse.ArgumentParser(prog="mus report", description=__doc__)
    parser.add_argument("study", type=Path, nargs="?", help="the folder of the study, such as runs/tiny")
    parser.add_argument("--cold", type=Path, help="the same study started without --warm-start, to compare with")
    parser.add_argument("--pool", type=Path, nargs="+", metavar="STUDY", help="instead of one study, finished studies "
                        "of the same settings on several worlds (benchmark seeds), seeds or machines")  # fmt: skip
    parser.add_argument("--to", type=Path, help="folder of the pool's page, tables and figure; default: `pool` in the "
                        "folder that the pooled studies have in common")  # fmt: skip
    parser.add_argument("--paper", action="store_true", help="write the figures, captions and LaTeX tables of a paper "
                        "into report/paper as well")  # fmt: skip
    asked = parser.parse_args(arguments)
    if bool(asked.study) == bool(asked.pool):
        parser.error("name one study, or several after --pool")
    if asked.paper and asked.pool:
        parser.error("--paper is for one study")
    if (asked.cold and asked.pool) or (asked.to and not asked.pool):
        parser.error("--cold is for one study, --to for a pool")
    try:
        if asked.pool:
            from analysis.pool import page as pool  # with what one study does without

            print(pool.build(asked.pool, asked.to or pool.default_folder(asked.pool)))
        else:
            print(report.build(asked.study, asked.cold, paper=asked.paper).page)
            if asked.paper:
                print(StudyFolder(asked.study).paper)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
