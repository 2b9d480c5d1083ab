"""The pages beside the code: links lead somewhere, a README of 60 seconds, figures that agree."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", ".github/*.md", "notebooks/**/*.md", "sealkit/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINK = re.compile(r"(!?)\[((?:[^\[\]]|!?\[[^\[\]]*\](?:\([^()]*\))?)*)\]\(([^()\s]+)\)")
WORDS = 700  # of the README that are read, at some 200 words a minute with its picture and table


def texts(path):
    """The Markdown of a page or a notebook, without its code."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text("utf-8")
    return re.sub(r"(?ms)^```.*?^```", "", text)


def anchors(path):
    """The names that GitHub gives to the headings of a page."""
    heads = re.findall(r"(?m)^#+ (.*)$", texts(path))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(path):
    """(whether it is a picture, its words, its target) of each link, those within links too."""
    found = LINK.findall(texts(path))
    return found + [inner for _, words, _ in found for inner in LINK.findall(words)]


@pytest.mark.parametrize("path", [*PAGES, *BOOKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(path):
    for picture, words, target in links(path):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists() and file.is_relative_to(ROOT), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}: {sorted(anchors(file))}"
        if picture:
            assert len(words) > 15, f"{target} needs a text for those who do not see it"


def test_what_is_linked_is_found():
    text = "[a](b.md) ![c](d.svg) [![e](f.svg)](g.md#h)"
    assert [target for *_, target in LINK.findall(text)] == ["b.md", "d.svg", "g.md#h"]
    assert len(links(ROOT / "README.md")) > 15 and len(PAGES) >= 7


def test_the_readme_is_short_and_leads_on():
    text = texts(ROOT / "README.md")
    words = re.sub(r"\([^()\s]*\)", "", text).split()
    assert len(words) <= WORDS, len(words)
    linked = {(ROOT / target.split("#")[0]) for *_, target in links(ROOT / "README.md")}
    inside = {path for path in PAGES if path != ROOT / "README.md"}
    assert inside - linked == set(), "a page that nobody finds"


def test_the_first_minute_tells_the_figures_of_the_table():
    page = (ROOT / "tests" / "benchmarks" / "README.md").read_text("utf-8")
    means = []
    for arm in ("self-edits before RL", "after iteration 2"):
        seeds = re.search(rf"(?m)^\| {arm} \|(.*)$", page)[1].split("|")[:5]
        means.append(round(sum(map(float, seeds)) / 5))
    head = (ROOT / "README.md").read_text("utf-8").split("## Run it")[0]
    assert "**from {} to {}%** (mean of five runs)".format(*means) in head


def test_the_score_to_beat_is_that_of_the_table():
    page = (ROOT / "tests" / "benchmarks" / "README.md").read_text("utf-8")
    arms = {
        "two iterations, all defaults": "after iteration 2",
        "one iteration": "after iteration 1",
        "no RL, the prompt for questions": "prompt for questions, no RL",
        "no RL, all defaults": "self-edits before RL",
    }
    for settings, arm in arms.items():
        cells = re.search(rf"(?m)^\| {settings} \|(.*)$", page)[1].split("|")
        *seeds, mean = (float(cell) for cell in cells[:6])
        row = re.search(rf"(?m)^\| {arm} \|(.*)$", page)[1]
        assert seeds == [float(cell.split()[0]) for cell in row.split("|")[:5]]
        assert mean == pytest.approx(sum(seeds) / 5, abs=0.05)


def test_notebooks_say_the_minutes_of_the_readmes_table():
    rows = re.findall(
        r"\(notebooks/(\w+)\.ipynb\) \| .+? \| ([\d.]+) \|", (ROOT / "README.md").read_text()
    )
    assert [name for name, _ in rows] == [path.stem for path in BOOKS]
    for path, (_, minutes) in zip(BOOKS, rows):
        assert f"**Time:** about {minutes} minutes" in texts(path), path.stem
