"""What the README says is there is there, and its example runs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from algorithms import AGENTS
from experiments.settings import ALGORITHMS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SECTIONS = ("idea", "equations", "settings", "metrics", "departures", "its claim")
INTERVAL = re.compile(r"(-?\d+\.\d+)(?: \w+)*\s+\[(-?\d+\.\d+), (-?\d+\.\d+)\]")  # "13.0 points [2.9, 22.8]"
MODULE = re.compile(r"python -m ((?:experiments|paper_figures)[\w.]*)")


def systems():
    """The rows of the systems table: name (without punctuation, small) -> (status, documentation)."""
    table = README.split("## Systems")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {re.sub(r"\W", "", name).lower(): (status, page) for name, status, _, page in rows[2:]}


def test_the_python_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 10
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["agent"].parts()["critic"].params is not None
    assert {"critic/loss", "critic/conservative_gap"} <= names["metrics"].keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    targets = [target for target in LINK.findall(page.read_text()) if not target.startswith(("https://", "http://"))]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_are_to_be_run_exist(page):
    for module in set(MODULE.findall(page.read_text())):
        path = ROOT / module.rstrip(".").replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_every_agent_has_a_row_and_only_agents_are_said_to_work():
    working = {name for name, (status, _) in systems().items() if status == "works"}
    assert working == set(AGENTS) == set(ALGORITHMS)
    for name in working:
        assert f"docs/algorithms/{name}.md" in systems()[name][1]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_page_of_an_agent_has_all_sections(name):
    headings = re.findall(r"^## (.*)$", (ROOT / f"docs/algorithms/{name}.md").read_text(), re.MULTILINE)
    assert [section for section in SECTIONS if section not in " ".join(headings).lower()] == []


def test_intervals_on_the_pages_are_those_measured():
    """As rounded as they are quoted, and either way round: what is 24.5 below the other is 24.5 above itself."""
    stored = [json.loads(path.read_text())["findings"] for path in (ROOT / "results/claims").glob("*.json")]
    found = [(row["value"], row["low"], row["high"]) for rows in stored for row in rows]
    found += [(-value, -high, -low) for value, low, high in found]
    pages = {path.stem: path.read_text().replace("−", "-") for path in (ROOT / "docs/algorithms").glob("*.md")}
    quoted = [(page, numbers) for page, text in pages.items() for numbers in INTERVAL.findall(text)]
    assert len(quoted) > 10
    for page, numbers in quoted:
        places = len(numbers[0].partition(".")[2])
        assert any(np.allclose(np.round(row, places), np.array(numbers, float)) for row in found), (page, numbers)


def test_every_command_in_the_readme_has_settings_that_exist():
    from experiments.overrides import parse

    commands = re.findall(r"^python -m experiments\.run ([^#\n]*)", README, re.MULTILINE)
    assert len(commands) > 5
    for command in commands:
        words = command.split()
        parse([word for word in words if not word.startswith("-")], sweep="-m" in words)


def test_the_marks_of_the_claims_table_are_there_once_and_in_order():
    begin, end = "<!-- claims:begin -->", "<!-- claims:end -->"
    assert README.count(begin) == README.count(end) == 1
    assert README.index(begin) < README.index(end)
