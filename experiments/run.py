"""The command line: `python -m experiments.run algo=wsrl task=pointmaze-umaze-v2 seed=0`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments.overrides import LAUNCHER, parse
from hybridrl.errors import HybridRLError

_FLAGS = {"-m": "sweep", "--multirun": "sweep", "--dry-run": "dry", "-h": "help", "--help": "help"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say and return the exit code: 0, or 1, 2, 3, 75 as `--help` explains."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    flags = {_FLAGS[argument] for argument in arguments if argument in _FLAGS}
    typed = [argument for argument in arguments if argument not in _FLAGS]
    try:
        if "help" in flags:
            from experiments.help import help_text

            print(help_text(typed), end="")
            return 0
        return _run(typed, flags, arguments)
    except HybridRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped before anything was run", file=sys.stderr)
        return 75


def _run(typed: list[str], flags: set[str], arguments: list[str]) -> int:
    jobs = parse(typed, sweep="sweep" in flags)
    # Names are right as far as they can be told without JAX; now it is worth its loading time.
    from experiments.config import compose_node, expand, from_hydra
    from experiments.runner import describe_command, execute

    launch = [str(override) for override in jobs[0] if override.key.startswith("hydra")]
    jobs = [[override for override in job if not override.key.startswith("hydra")] for job in jobs]
    expanded = [expand(job) for job in jobs]
    configs = [from_hydra(compose_node(job)) for job in expanded]
    for config in configs:
        config.check()
    if "dry" in flags:
        from experiments.help import describe

        for config in configs:
            print(describe(config))
        return 0
    command = describe_command(arguments)
    if "sweep" in flags:
        from experiments.sweep import sweep

        return sweep(configs, expanded, launch, command)
    if launch:
        from hybridrl.errors import ConfigError

        raise ConfigError(f"{LAUNCHER} carries sweeps; add -m, or leave it out")
    return execute(configs[0], command).code


if __name__ == "__main__":
    sys.exit(main())
