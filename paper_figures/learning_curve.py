"""`python -m paper_figures.learning_curve RUN_FOLDER [OUTPUT.png]`: one run's score and switch panel."""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.curve import draw
from experiments.results import CURVE, load
from hybridrl.errors import HybridRLError


def main(arguments: list[str] | None = None) -> int:
    """Draw the learning curve of a run folder, by default into it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) not in (1, 2) or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    folder = Path(arguments[0])
    try:
        path = draw(load(folder), Path(arguments[1]) if len(arguments) == 2 else folder / CURVE)
    except HybridRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"drew {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
