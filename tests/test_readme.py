"""The README says what the code does: its table is generated, its names exist, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vissl_zoo.methods import METHODS, table
from vissl_zoo.models import entrypoints
from vissl_zoo.recipes import RECIPES

COMMANDS = ("pip install -e . && accelerate launch train.py", 'pip install -e ".[test]" && pytest')
TABLE = re.compile(r"<!-- table 1 -->\n(.*?)\n<!-- /table 1 -->", re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"")


@pytest.fixture
def readme(root) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def broken_links(file: Path) -> list[str]:
    """Relative targets of a Markdown file's links and images that do not exist."""
    targets = [a or b for a, b in LINK.findall(file.read_text(encoding="utf-8"))]
    relative = [t.split("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]
    return [t for t in relative if not (file.parent / t).exists()]


def test_table_1_is_the_methods_own(readme):
    [found] = TABLE.findall(readme)
    assert found == table()


def test_the_table_has_a_column_for_each_method():
    header, rule, *rows = table().splitlines()
    assert [cell.strip() for cell in header.split("|")[2:-1]] == [m.row.method for m in METHODS.values()]
    counts = {len(re.split(r"(?<!\\)\|", line)) for line in (header, rule, *rows)}
    assert counts == {len(METHODS) + 3}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_there_word_for_word(readme, command):
    assert command in readme.splitlines()


def test_every_recipe_and_model_is_named(readme):
    quoted = set(re.findall(r"`([^`\n]+)`", readme))
    assert set(RECIPES) - quoted == set()
    assert set(entrypoints()) - quoted == set()


def test_nothing_was_left_to_fill_in(readme):
    assert not re.search(r"@@|TODO|FIXME|XXX", readme)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_relative_links_lead_somewhere(root, name):
    assert broken_links(root / name) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").touch()
    page = tmp_path / "page.md"
    page.write_text('[a](there.md#x) [b](https://x.y/z) ![c](gone.png "t") <img src="lost.png"> [d](#top)')
    assert broken_links(page) == ["gone.png", "lost.png"]


def test_tables_are_not_behind(root):
    """What `python docs/tables.py` would write stands there already."""
    check = subprocess.run([sys.executable, str(root / "docs" / "tables.py"), "--check"], capture_output=True)
    assert check.returncode == 0, check.stderr.decode() or "run python docs/tables.py"
