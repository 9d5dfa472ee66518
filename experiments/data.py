"""`python -m experiments.data list`, `show`, `get`, `verify`, `make`: the datasets, without any task's training.

NAME is a task or a dataset's id. Datasets live in $HYBRIDRL_DATA, by default `hybridrl` in the user's cache folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from envs.catalog import CATALOG, Entry, catalog, find
from envs.registry import TASKS, make_task
from experiments.data_tables import BEGIN, END, docs_table, list_rows, list_text, show_text
from experiments.overrides import nearest
from hybridrl.data_folder import all_stored, dataset_folder, stored
from hybridrl.errors import ConfigError, HybridRLError
from hybridrl.task import Task

_EPILOG = """\
examples
  python -m experiments.data list pointmaze               # what there is, and what of it is here
  python -m experiments.data show pointmaze-umaze-v2      # source, licence, size, hashes, needs
  python -m experiments.data get pointmaze-umaze-v2       # before going to a machine without a network
  python -m experiments.data make pointmaze-umaze-v2      # by the published procedure, without downloading
  python -m experiments.data verify --all

environment
  HYBRIDRL_DATA       folder of all datasets (default ~/.cache/hybridrl); copy it to take the data elsewhere
  HYBRIDRL_OFFLINE=1  never download

exit codes
  0   done
  1   internal error
  2   a name or option is wrong, or an extra is missing
  3   data cannot be had, are damaged, or are not what is recorded of them
  75  interrupted; the same command goes on
"""


class _Parser(argparse.ArgumentParser):
    """Reports mistakes as the library does, with a suggestion."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            typed = message.partition(": ")[2].split()[0]
            near = nearest(typed, self.known)
            raise ConfigError(f"no option {typed!r}; " + (f"did you mean {near!r}?" if near else "see --help"))
        raise ConfigError(f"{message}; see --help")

    known: tuple[str, ...] = ("--local", "--json", "--no-download", "--no-generate", "--all", "--force", "--write")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say and return the exit code, as `--help` explains."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parse(arguments)
        with _LogLines(), _sigterm_interrupts():
            return options.run(options)
    except HybridRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; nothing unfinished was left in place, and the same command goes on", file=sys.stderr)
        return 75
    except BrokenPipeError:  # what reads our output has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the interpreter's last flush
        return 0


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """In the block, the end that a cluster announces acts as the user's Ctrl-C. Only a main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m experiments.data",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str, names: str = "") -> _Parser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(run=run)
        if names:
            added.add_argument("names", metavar="NAME", nargs=names, help="a task or a dataset's id")
        return added

    listing = command("list", _list, "every dataset: rows, size, how it can be had, whether it is here, its tasks")
    listing.add_argument("pattern", nargs="?", default="", help="part of an id or task, or a shell pattern")
    listing.add_argument("--local", action="store_true", help="only those that are here")
    listing.add_argument("--json", action="store_true", help="as JSON")
    command("show", _show, "everything known about a dataset", "+")
    getting = command("get", _get, "have datasets here: cache, then download, then generation; and check them", "+")
    getting.add_argument("--no-download", action="store_true", help="do not download")
    getting.add_argument("--no-generate", action="store_true", help="do not generate")
    verifying = command("verify", _verify, "recompute hashes, read and check the data, compare with the record", "*")
    verifying.add_argument("--all", action="store_true", help="all that are here")
    making = command("make", _make, "generate datasets by their published procedures; never download", "+")
    making.add_argument("--force", action="store_true", help="replace what is here, once the new one is complete")
    command("record", _record, "for maintainers: measure datasets and write their entries in envs/catalog.json", "+")
    table = command("table", _table, "for maintainers: the documentation's table of all datasets")
    table.add_argument("--write", type=Path, metavar="PAGE", help="write it between the marks in this page")
    typed = next((argument for argument in arguments if not argument.startswith("-")), None)
    if typed is not None and typed not in commands.choices:
        near = nearest(typed, commands.choices)
        hint = f"did you mean {near!r}?" if near else f"expected one of {', '.join(commands.choices)}"
        raise ConfigError(f"no command {typed!r}; {hint}")
    return parser.parse_args(arguments)


def _list(options: argparse.Namespace) -> int:
    entries = catalog()
    rows = list_rows(entries, options.pattern, options.local)
    if not rows and options.pattern and not list_rows(entries, options.pattern):
        near = nearest(options.pattern, [*entries, *TASKS])
        hint = f"did you mean {near!r}?" if near else "list all with: python -m experiments.data list"
        raise ConfigError(f"no dataset or task matches {options.pattern!r}; {hint}")
    print(json.dumps(rows, indent=2) if options.json else list_text(rows))
    return 0


def _show(options: argparse.Namespace) -> int:
    print("\n\n".join(show_text(entry) for entry, _ in _chosen(options.names)))
    return 0


def _get(options: argparse.Namespace) -> int:
    from experiments import data_work

    def work(entry: Entry, task: Task) -> list[str]:
        examined = data_work.get(
            entry, task, allow_download=not options.no_download, allow_generate=not options.no_generate
        )
        print(data_work.report(entry, examined), flush=True)
        return examined.problems

    return _each(options.names, work)


def _make(options: argparse.Namespace) -> int:
    from experiments import data_work

    def work(entry: Entry, task: Task) -> list[str]:
        examined = data_work.make(entry, task, force=options.force)
        print(data_work.report(entry, examined), flush=True)
        return examined.problems

    return _each(options.names, work)


def _verify(options: argparse.Namespace) -> int:
    if options.all == bool(options.names):
        raise ConfigError("verify takes names or --all, one of the two; see --help")
    from experiments import data_work

    def work(entry: Entry, task: Task) -> list[str]:
        examined = data_work.verify(entry)
        for note in examined.notes:
            print(f"note: {entry.spec.id}: {note}")
        if not examined.problems:
            print(f"ok: {entry.spec.id}: {examined.statistics.rows:,} rows, {examined.stored.origin}", flush=True)
        return examined.problems

    if not options.all:
        return _each(options.names, work)
    entries = catalog()
    known = {dataset_folder(entry.spec): id for id, entry in entries.items() if stored(entry.spec) is not None}
    code = _each(list(known.values()), work)
    for found in all_stored():
        if found.folder not in known:
            try:
                data_work.verify_unknown(found)
                print(f"ok: {found.id}: hashes only, as no task uses it")
            except HybridRLError as error:
                code = max(code, _problem(found.id, str(error), error.exit_code))
    return code


def _record(options: argparse.Namespace) -> int:
    from experiments import data_work

    for entry, task in _chosen(options.names):
        measured = data_work.write_record(entry, task)
        print(f"recorded {entry.spec.id}: {measured.rows:,} rows, {measured.origin}", flush=True)
    print(f"written to {CATALOG}; now: python -m experiments.data table --write docs/datasets.md")
    return 0


def _table(options: argparse.Namespace) -> int:
    table = docs_table(catalog())
    if options.write is None:
        print(table, end="")
        return 0
    from hybridrl import disk

    try:
        text = options.write.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {options.write} ({error.strerror}); name the page, docs/datasets.md") from error
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ConfigError(f"{options.write} has no lines {BEGIN} and {END}; add them where the table belongs")
    disk.write_bytes(options.write, (text.split(BEGIN)[0] + f"{BEGIN}\n{table}{END}" + text.split(END)[1]).encode())
    return 0


def _chosen(names: list[str]) -> list[tuple[Entry, Task]]:
    """Each name's dataset, once, with the task to read it for: all are known before anything is done."""
    entries = catalog()
    chosen: dict[str, tuple[Entry, Task]] = {}
    for name in names:
        entry = find(name, entries)
        task = entry.task() if name in entries else make_task(name)
        chosen.setdefault(entry.spec.id, (entry, task))
    return list(chosen.values())


def _each(names: list[str], work: Callable[[Entry, Task], list[str]]) -> int:
    """Do the work for each dataset; one that fails does not keep the others from being worked on."""
    code = 0
    for entry, task in _chosen(names):
        try:
            for problem in work(entry, task):
                code = max(code, _problem(entry.spec.id, problem, 3))
        except HybridRLError as error:
            code = max(code, _problem(entry.spec.id, str(error), error.exit_code))
    return code


def _problem(dataset_id: str, text: str, code: int) -> int:
    print(f"error: {dataset_id}: {text}", file=sys.stderr, flush=True)
    return code


class _LogLines(logging.Handler):
    """The library's own notices, such as waiting for another process, as lines on the error stream."""

    def __enter__(self) -> None:
        self.setLevel(logging.INFO)
        self.before = {name: logging.getLogger(name).level for name in ("hybridrl", "envs")}
        for name in self.before:
            logging.getLogger(name).setLevel(logging.INFO)
            logging.getLogger(name).addHandler(self)

    def __exit__(self, *_: Any) -> None:
        for name, level in self.before.items():
            logging.getLogger(name).setLevel(level)
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """One notice."""
        print(record.getMessage(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
