"""The page of a run: one file that needs nothing beside it, safe whatever a model wrote."""

import json
import os
import re
import runpy
from base64 import b64decode
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import pytest
from matplotlib import pyplot
from matplotlib.container import BarContainer
from peft import LoraConfig

from sealkit import Comparison, Iteration, Journal, Passage, Question, RunError, Trial
from sealkit.cli.page import command_of, format_results, format_rows, wrap, write_page
from sealkit.cli.record import BEFORE, Record, note_command, read_record
from sealkit.cli.rows import format_header, format_row
from sealkit.cli.talk import learned_passages, talk
from sealkit.cli.web import make_server
from sealkit.figures import PALETTE, describe, mean_interval, plot_rewards
from sealkit.outer_loop import format_log
from sealkit.runs.identity import digest
from sealkit.tasks import knowledge, puzzles
from sealkit.tasks.few_shot import GRID

picture = runpy.run_path(str(Path(__file__).parents[1] / "notebooks" / "picture.py"))
write_picture = picture["write_picture"]

NASTY = (
    "</pre><script src='http://x.y/z.js'>1</script>\x00\x1b[31m\ud800\uffff ✓ {{ lead }} & {% x %}"
)
DRAWINGS = Path(__file__).parents[1] / "notebooks" / "images"
LOOP = DRAWINGS / "loop.svg.jinja"
VOID = "meta", "link", "br", "img", "hr", "input"

RECIPES = list(GRID.values())


def page(record):
    """The page of a Record: str."""
    with TemporaryDirectory() as folder:
        write_page(record, Path(folder) / "report.html")
        return (Path(folder) / "report.html").read_text("utf-8")


def made_up(text=NASTY, iterations=2, passages=4):
    """A Record that no run made."""

    def trial(i, edit=text):
        return Trial(edit, (i % 3) / 3, ["a", text], [2.0, 1.0], 9)

    items = [
        Passage(f"{text} {i}", text, (Question("Why?", ("a",)), Question(text, ("b",))))
        for i in range(passages)
    ]
    n = range(passages)
    trials = tuple((trial(i), trial(i + 1, "Question: Why? Answer: a")) for i in n)
    zeros, names = (0.0,) * passages, tuple(item.title for item in items)
    done = tuple(
        Iteration(t, names, zeros, zeros, trials, ((0, 1),), (1.0, 0.5), {})
        for t in range(1, iterations + 1)
    )
    arms = [BEFORE, *(f"after iteration {one.number}" for one in done)]
    tried = {arm: [trial(i + t) for i in n] for t, arm in enumerate(arms)}
    scores = {"no adaptation": zeros}
    scores |= {arm: tuple(one.reward for one in own) for arm, own in tried.items()}
    settings = {"task": knowledge.__name__, "seed": 0, "text": text}
    about = Path("runs/1"), settings, {"torch": "2"}, {"seed": 0, "model": text}
    return Record(*about, items, items, done, {1: 3.2}, Comparison(scores), tried)


class Strict(HTMLParser):
    """Raises AssertionError for tags that do not nest, and for whatever is fetched or run."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        assert tag not in ("script", "iframe", "object", "img", "base", "form"), tag
        assert "p" not in self.open or tag not in ("table", "div", "p"), "which would end the p"
        for name, value in attributes:
            assert not name.startswith("on"), name
            local = name.startswith("xmlns") or (value or "").startswith(("#", "data:,"))
            assert local or name not in ("src", "href", "xlink:href", "action"), (name, value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open = self.open if tag in VOID else self.open[:-1]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", ["It burns.", NASTY, "", "x" * 5000])
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_the_page_is_whole_and_fetches_nothing(text, iterations, tmp_path):
    record = made_up(text, iterations)
    write_page(record, tmp_path / "report.html")
    source = (tmp_path / "report.html").read_text("utf-8")
    parser = Strict()
    parser.feed(source)
    parser.close()
    assert not parser.open and "\x00" not in source and "\x1b" not in source
    assert ("svg" in parser.seen) == (iterations > 0)
    assert source.count("What the policy learned to write") == (iterations > 0)
    assert "url(" not in source.replace("url(#", "") and "@import" not in source
    assert "prefers-color-scheme: dark" in source and "default-src 'none'" in source
    if iterations:
        assert parser.text.count("before RL: reward") == 3
        for part in ("points", "seed", "torch", f"after iteration {iterations}"):
            assert part in parser.text


STREAM = {"accuracy": [[0.0, 0.0], [0.8, 0.1], [0.4, 0.6]], "routed": None, "steps": 9}
STREAM |= {"tokens": 90, "seconds": 1.0, "bytes": 8}
BETTER = STREAM | {"accuracy": [[0.0, 0.0], [0.8, 0.1], [0.8, 0.6]]}


def run_of_streams(folder):
    """(the Record of a made-up run on streams, of whose remedies one is not done,)."""
    (folder / "run.json").write_text('{"settings": {"k": 2, "seed": 5}, "machine": {}}')
    journal = Journal(folder)
    arms = {"none": [STREAM] * 2, "replay": [BETTER] * 2, "gate": [STREAM]}
    for name, rows_of in arms.items():
        journal.update({("arm", f"stream, {name}", "3, x", i): r for i, r in enumerate(rows_of)})
    return (read_record(folder),)


def test_a_past_run_of_streams_tells_its_matrices(tmp_path):
    """Also when not all remedies are done: those that are."""
    (record,) = run_of_streams(tmp_path)
    told = format_results(record)
    for part in ("2 streams of 2 passages", "70% at the end", "replay − none: +20.0 points"):
        assert part in told
    assert "From only 2 streams" in told and "<dt>backward transfer</dt>" in page(record)
    assert "gate" not in told and max(map(len, told.splitlines())) <= 80
    source = page(record)
    parser = Strict()
    parser.feed(source.replace("data:image/png", "data:,"))
    assert not parser.open and source.count("<svg") == 1 and "The iterations" not in source
    assert "70% at the end" in source.split("aria-label")[1] and "never adapted" in parser.text
    with pytest.raises(RunError, match="The picture is of runs on passages"):
        write_picture(record, tmp_path / "loop.svg")
    with pytest.raises(RunError, match="holds no finished iteration of the command line"):
        talk(record)
    passages = {"test": [Passage(name, "It is.", (Question("Is it?", ("yes",)),)) for name in "ab"]}
    note_command(tmp_path, {"model": "bundled", "seed": 5}, **passages)
    assert sorted(passage.title for passage in learned_passages(read_record(tmp_path))) == [
        "a",
        "b",
    ]
    with pytest.raises(RunError, match="--passage 3: there are 2 in the first stream"):
        talk(read_record(tmp_path), 3)
    with pytest.raises(RunError, match="holds streams, learned already: leave --web out"):
        make_server(read_record(tmp_path))


def test_a_past_run_on_puzzles_tells_its_table(tmp_path):
    settings = {"task": puzzles.__name__, "k": 1}
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings, "machine": {}}))
    journal = Journal(tmp_path, LoraConfig())
    journal.update({("before", 1, 0): 0.0, ("self-edit", 1, 0, 0): "no recipe"})
    alone = Trial("", 0.5, ["1"], [2.0, 1.0], 9)
    journal.update({("trial", 1, 0, None): vars(alone)})
    journal.update({("policy", 1): {"losses": [], "weights": {}, "kept": []}})
    with pytest.raises(RunError, match=r"journal.jsonl: no line has the key \('trial', 1, 0, 0\)"):
        read_record(tmp_path)
    journal.update({("trial", 1, 0, 0): vars(Trial("no recipe", 0.0, [], [], 0, "no recipe"))})
    scores = {"self-edits before RL": [0.0, 0.5], "after iteration 1": [0.5, 1.0]}
    scores |= {"after iteration 1, 5 views vote": [1.0, 1.0], "best fixed recipe": [1, 1]}
    found = {"accuracy": scores, "notes": ["Invalid recipes, before RL: 50%"]}
    (tmp_path / "results.json").write_text(json.dumps(found))
    record = read_record(tmp_path)
    ((trial,),) = record.iterations[0].trials
    assert trial.reason and trial.self_edit == "no recipe"
    told = " ".join(format_results(record).split())
    for part in ("2 puzzles that no policy has seen", "RL: 50%", "best fixed recipe -25.0"):
        assert part in told
    source, table = page(record), list(format_rows(record))
    assert "25.0% before RL to 75.0%" in source and "before RL: 50%" in source, "without the vote"
    assert "puzzle only" in table[0] and table[1].endswith("0%   0%   0% 100%")
    assert "best fixed recipe" in source and "held-out puzzles" in source and "<svg" in source
    with pytest.raises(RunError, match="only what read passages can be asked"):
        talk(record)


def run_of_puzzles(folder, config=puzzles.BUNDLED_CONFIG):
    """(the Record of a made-up run on a held-out puzzle that is solved after RL, the puzzle)."""
    settings = {n: v for n, v in asdict(config).items() if n not in ("prompts", "keep")}
    settings |= {"task": puzzles.__name__, "k": 1, "prompts": digest([config.prompts])}
    (folder / "run.json").write_text(json.dumps({"settings": settings, "machine": {}}))
    (puzzle,) = puzzles.load_puzzles("bundled", "test", 1)
    note_command(folder, {"task": "puzzles"}, train=[], test=[puzzle])
    journal, right = Journal(folder), [puzzles.line(y) for _, y in puzzle.tests]
    before = Trial("no recipe", 0.0, [], [], 0, "no recipe: it is no JSON")
    after = Trial(RECIPES[-1], 1.0, right, [2.0, 1.0], 9)
    arms = {BEFORE: before, "after iteration 1": after, RECIPES[0]: after}
    journal.update({("arm", arm, "2, x", 0): vars(trial) for arm, trial in arms.items()})
    accuracy = {BEFORE: [0.0], "after iteration 1": [1.0]}
    (folder / "results.json").write_text(json.dumps({"accuracy": accuracy}))
    return read_record(folder), puzzle


def test_the_page_draws_held_out_puzzles_with_recipe_versions_and_answers(tmp_path):
    record, puzzle = run_of_puzzles(tmp_path)
    assert record.test == [puzzle] and record.arms == [BEFORE, "after iteration 1"]
    source = page(record)
    parser = Strict()
    parser.feed(source)
    assert not parser.open
    x, y = puzzle.tests[0]
    for grid in (*puzzle.demonstrations[0], x, y):
        assert f'aria-label="{puzzles.line(grid)}"' in source
    lesson = puzzles.lesson(puzzle, RECIPES[-1], record.config)
    versions = {lesson.part(step).texts[0] for step in range(4)}
    assert len(versions) > 1, "a recipe that augments"
    for text in versions:
        assert f'aria-label="{text.split(" -> ")[0]}"' in source
    before, after = source.split("before RL: reward 0%")[1].split("after iteration 1: reward 100%")
    assert "no recipe: it is no JSON" in before and "✗" in before and "right: <table" in before
    assert "✓" in after and "right: " not in after
    told = format_results(record)
    assert "1 puzzle that no policy has seen" in told and "From only 1 puzzle" in told


def test_the_page_marks_answers_as_they_were_graded_and_says_when_and_by_what(tmp_path):
    config, record = knowledge.BUNDLED_CONFIG, made_up("It burns.")
    settings = {n: v for n, v in asdict(config).items() if n not in ("prompts", "keep")}
    assert "✓" not in page(record).split("<details>")[1].split("</details>")[0], "grader unknown"
    settings |= {"task": knowledge.__name__, "prompts": digest([config.prompts])}
    (tmp_path / "run.json").write_text("{}")
    os.utime(tmp_path / "run.json", (86400 * 366,) * 2)
    source = page(replace(record, settings=settings, folder=tmp_path))
    exam = source.split("<details>")[1].split("</details>")[0]
    assert exam.count("<td>a ✓</td>") == 2 and exam.count("<td>It burns. ✗</td>") == 2
    assert "Begun on 1971-01-02; written by sealkit " in source


def test_one_passage_is_one_passage_and_few_are_called_few():
    record = made_up("It burns.", passages=1, iterations=1)
    told = format_results(record) + page(record)
    assert "1 passages" not in told and "1 iterations" not in told
    assert told.count("From only 1 passage, intervals are too narrow") >= 2


def test_the_page_names_the_command_that_made_the_run():
    command = {"model": "a b", "data": None, "seed": 0, "styles": True}
    record = replace(made_up(), command=command)
    assert command_of(record) == "python -m sealkit --model 'a b' --seed 0 --styles"
    for word in ("--model", "&#39;a", "b&#39;", "--styles"):  # none breaks behind its hyphens
        assert f'<code class="word">{word}</code>' in page(record)
    assert command_of(replace(record, command={})) == "run_seal"


def test_the_same_record_gives_the_same_page():
    assert page(made_up()) == page(made_up())


@pytest.mark.parametrize("text", ["It burns. " * 40, NASTY])
def test_nothing_in_the_terminal_is_wider_than_80_columns(text):
    record = made_up(text)
    told = "\n".join([format_results(record), *format_rows(record)])
    assert max(map(len, told.splitlines())) <= 80
    assert "\x1b" not in told and "\x00" not in told
    assert wrap("a " * 100, "    ").splitlines()[1].startswith("      a")


def test_a_row_fits_below_its_head():
    (one,) = made_up(iterations=1).iterations
    styles = dict.fromkeys(knowledge.KINDS, 2)
    long = format_row(one, 12345.6, styles)
    assert len(long) == len(format_header(styles)) <= 80 and "1.00 → 0.50" in long
    assert len(format_row(one)) <= 80


def test_the_style_of_a_self_edit_is_told_from_its_form():
    passage = Passage("Ana", "It is red.", (Question("Color?", ("red",)),))
    edits = "Ana is red.\nRed is Ana.", "Question: Color? Answer: red", "Ana is red. It is.", "Hm."
    assert [knowledge.style(passage, edit) for edit in edits] == list(knowledge.KINDS)


def test_a_folder_without_a_run_or_with_a_damaged_record_is_one_sentence(tmp_path):
    with pytest.raises(RunError, match="holds no run: give a run's folder"):
        read_record(tmp_path)
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(RunError, match="run.json: .*Put back a copy"):
        read_record(tmp_path)


def check_drawing(path):
    """An SVG that says in words what it shows, suits light and dark, and needs nothing else."""
    source, tag = path.read_text("utf-8"), "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(source)
    title, told = (root.find(tag + name).text for name in ("title", "desc"))
    assert root.get("role") == "img" and len(title) > 10 and len(told) > 60
    assert (
        "prefers-color-scheme: dark" in source and root.find(f"{tag}rect").get("class") == "ground"
    )
    assert "href" not in source and not re.search(r"url\((?!#)", source)
    known = set(re.findall(r"\.([a-z]+)", root.find(f"{tag}style").text))
    assert {name for node in root.iter() for name in node.get("class", "").split()} <= known
    return root


@pytest.mark.parametrize("path", sorted(DRAWINGS.glob("*.svg")), ids=lambda path: path.stem)
def test_the_drawings_of_the_notebooks(path):
    check_drawing(path)


def test_the_committed_picture_of_the_loop_is_of_the_present_drawing():
    """If not: python notebooks/picture.py runs/1"""
    drawing = LOOP.read_text("utf-8")
    parts = re.split(r"(?s){[{%].*?[}%]}", drawing[drawing.index("<svg") :])
    drawn = (DRAWINGS / "loop.svg").read_text("utf-8")
    at = 0
    for part in parts:
        assert (at := drawn.find(part, at)) >= 0, part


@pytest.mark.parametrize("text", ["It burns. " * 40, NASTY, ""])
def test_the_picture_of_the_loop_is_filled_from_a_run(text, tmp_path):
    record = made_up(text)
    write_picture(record, tmp_path / "loop.svg")
    root = check_drawing(tmp_path / "loop.svg")
    told = "".join(root.itertext())
    before, after = record.tried[BEFORE][0].reward, record.tried["after iteration 2"][0].reward
    assert f"{before:.0%} right before RL, {after:.0%} after iteration 2" in told
    assert after > before and "On all 4 passages" in told.replace("  ", " ")
    assert {node.get("id") for node in root.iter()} >= {f"step-{n}" for n in range(1, 6)}


def test_a_run_that_is_not_over_has_no_picture(tmp_path):
    with pytest.raises(RunError, match="has compared no policies yet: let the run end"):
        write_picture(made_up(iterations=0), tmp_path / "loop.svg")


def test_the_figure_of_rewards_counts_every_self_edit_once():
    record = made_up(iterations=2)
    axes = plot_rewards(record)
    left, right = axes.get_xlim()
    bars = [one for one in axes.containers if isinstance(one, BarContainer)]
    widths = [bar.get_width() for one in bars for bar in one]
    assert sum(widths) == pytest.approx(2 * 8 * 0.64 / 3)  # 8 self-edits, at most 3 a level
    middle, half = mean_interval(record.iterations[0])
    assert 0 < middle < 100 and half > 0 and left < 1 < right
    pyplot.close("all")


def test_a_described_figure_is_shown_once_with_its_text():
    figure, axes = pyplot.subplots()
    shown = describe(axes, "Nothing is drawn on these axes, from 0 to 1.")
    data, about = shown._repr_mimebundle_()
    assert data["text/plain"] == about["image/png"]["alt"] == shown.text
    assert b64decode(data["image/png"]).startswith(b"\x89PNG") and not pyplot.get_fignums()
    with pytest.raises(ValueError, match="does not tell what the figure shows"):
        describe(figure, "A figure.")


def lightness(color):
    """Relative luminance of #rrggbb, 0 to 1 (WCAG 2)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))


def test_the_palette_can_be_told_apart_on_paper_and_on_a_screen():
    assert len(set(PALETTE)) == len(PALETTE)
    for color in PALETTE:
        assert 0.1 < lightness(color) < 0.55, color


def test_a_row_counts_the_trials_that_were_cut():
    (one,) = made_up(iterations=1).iterations
    assert "\n" not in format_row(one)
    (first, *others), *rest = one.trials
    trials = ((replace(first, cut=300), *others), *rest)
    row, below = format_row(replace(one, trials=trials)).split("\n")
    count = sum(map(len, trials))
    assert row == format_row(one) and len(below) <= 80
    assert f"(1 of {count} trials cut at max_tokens, 300 tokens left out)" in below
    told = format_log(replace(one, trials=trials))
    assert told.count("300 tokens cut, reward") == 1 and "tokens cut" not in format_log(one)
