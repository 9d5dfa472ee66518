"""`python -m experiments.record RUN_FOLDER NAME`: keep a finished run's curve as a small file, with what made it.

For runs too long to repeat in a claim. The file holds the command, so that anyone can make it again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import results
from hybridrl import disk
from hybridrl.errors import ConfigError, HybridRLError

STORED = Path("results/curves")


def main(arguments: Sequence[str] | None = None) -> int:
    """Record one run; exit code 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m experiments.record", description=__doc__)
    parser.add_argument("folder", type=Path, help="a finished run's: <root>/<task>/<algo>/<hash>/seed_<n>")
    parser.add_argument("name", help="of the file, without .json")
    parser.add_argument("--output", type=Path, default=STORED, help="where the files are")
    options = parser.parse_args(arguments)
    try:
        path = options.output / f"{options.name}.json"
        found = curve(results.load(options.folder))
        options.output.mkdir(parents=True, exist_ok=True)
        disk.write_json(path, found)
    except HybridRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"stored in {path}")
    return 0


def curve(run: results.Run) -> dict[str, Any]:
    """What is kept of a finished run: how it was made, and mean, least and largest return of every evaluation.

    Raises:
        ConfigError: the run has not finished.
    """
    if not run.finished:
        raise ConfigError(
            f"{run.folder} is not finished ({run.result.get('status', 'no result yet')}); run its command again first"
        )
    start = run.provenance["starts"][0]
    returns = [record["episodes"]["returns"] for record in run.evaluations]
    return {
        "command": " ".join(start["command"]),
        "task": run.config["task"],
        "algo": run.config["algo"],
        "seed": run.config["seed"],
        "scale": run.config["scale"],
        "score_label": run.result["score_label"],
        "provenance": {name: start[name] for name in ("git", "python", "cpu_count", "devices", "versions", "dataset")},
        "env_steps": [record["env_steps"] for record in run.evaluations],
        "updates": [record["updates"] for record in run.evaluations],
        "scores": [record["summary"]["score"] for record in run.evaluations],
        "mean_returns": [sum(values) / len(values) for values in returns],
        "least_returns": [min(values) for values in returns],
        "largest_returns": [max(values) for values in returns],
        "final_score": run.result["scores"]["final"],
    }


if __name__ == "__main__":
    sys.exit(main())
