"""`python -m analysis runs/<study>`: rebuild the report of a study from its folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.report import build


def main(arguments: list[str] | None = None) -> int:
    """Build the report and print its path. Returns 0, or 2 if the folder is not a study or a file in it is damaged."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of the study, such as runs/tiny")
    parser.add_argument("--cold", type=Path, help="the same study started without --warm-start, to compare with")
    asked = parser.parse_args(arguments)
    try:
        print(build(asked.study, asked.cold).page)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
