"""The README and the pages of docs/: tables are generated, links lead somewhere, prose is plain."""

import importlib.util
import re
from pathlib import Path

import pytest

from vissl_zoo.methods import METHODS, table
from vissl_zoo.models import entrypoints

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    ROOT.glob("docs/*.md")
)
COMMANDS = ("pip install -e . && accelerate launch train.py", 'pip install -e ".[test]" && pytest')
LONGEST = 28  # words of a sentence
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"")
NO_PROSE = re.compile(r"^```.*?^```|<!--.*?-->|^\|.*?$", re.M | re.S)
SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+")
PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*#]|\d+\.) )|^#.*$", re.M)


@pytest.fixture
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def broken_links(file: Path) -> list[str]:
    """Relative targets of a Markdown file's links and images that do not exist."""
    targets = [a or b for a, b in LINK.findall(file.read_text(encoding="utf-8"))]
    relative = [t.split("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]
    return [t for t in relative if not (file.parent / t).exists()]


def long_sentences(text: str) -> list[str]:
    """Sentences of a page's prose with more words than one should have."""
    paragraphs = PARAGRAPH_END.split(NO_PROSE.sub("\n\n", text))
    sentences = [sentence for paragraph in paragraphs for sentence in SENTENCE_END.split(paragraph)]
    return [" ".join(sentence.split()) for sentence in sentences if len(sentence.split()) > LONGEST]


def test_the_readme_is_short(readme):
    assert len(readme.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_sentence_is_long(page):
    assert long_sentences(page.read_text(encoding="utf-8")) == []


def test_a_long_sentence_is_found():
    word = "word " * LONGEST
    text = f"# {word}x\n\n{word}\n- {word[5:]}\n```\n{word}x\n```\n\n| {word}x |\n\n<!-- {word}x -->\nShort. {word}end."
    assert long_sentences(text) == [f"{word}end."]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:vissl_zoo|tests|docs|examples|experiments|benchmarks|model_cards|\.ci)/[\w./]*)`", text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").touch()
    page = tmp_path / "page.md"
    page.write_text('[a](there.md#x) [b](https://x.y/z) ![c](gone.png "t") <img src="lost.png"> [d](#top)')
    assert broken_links(page) == ["gone.png", "lost.png"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_was_left_to_fill_in(page):
    assert not re.search(r"@@|TODO|FIXME|XXX", page.read_text(encoding="utf-8"))


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    assert {page.stem for page in ROOT.glob("docs/*.md")} - {"index"} <= set(index)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_there_word_for_word(readme, command):
    assert command in readme.splitlines()


def test_the_table_has_a_column_for_each_method():
    header, rule, *rows = table().splitlines()
    assert [cell.strip() for cell in header.split("|")[2:-1]] == [m.row.method for m in METHODS.values()]
    counts = {len(re.split(r"(?<!\\)\|", line)) for line in (header, rule, *rows)}
    assert counts == {len(METHODS) + 3}


def test_the_rule_of_names_makes_every_name(readme):
    methods, backbones = (
        re.findall(r"`([^`]+)`", line)[1:]
        for line in readme.splitlines()
        if re.match(r"- `(METHOD|BACKBONE)` is", line)
    )
    made = {f"{method}_{backbone}" for method in methods for backbone in backbones}
    assert made <= set(entrypoints())
    assert set(entrypoints()) - made - set(methods) <= {"kappa"}


def test_tables_are_not_behind():
    """What `python docs/tables.py` would write stands there already."""
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    texts = {page.name: page.read_text(encoding="utf-8") for page in tables.PAGES}
    assert [name for name, text in texts.items() if tables.renewed(text) != text] == []


def test_the_python_of_the_readme_runs(readme, tmp_path, monkeypatch):
    """In a folder that has docs/, as a checkout does."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S)
    found = {}
    exec(compile(block, "README.md", "exec"), found)
    assert found["kappa"].shape == found["uncertainty"].shape == (1,)
    assert found["embedding"].shape == (1, found["model"].num_features)
    assert found["classifier"].num_classes == 10
