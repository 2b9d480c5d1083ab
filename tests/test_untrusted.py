"""What a self-edit, a checkpoint or a step that diverges may not do."""

import json
import os
import random
import re
import shutil
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from families import CONFIGS, tokenizer_like
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed import small_policy
from small_runs import (
    FAULTS,
    content,
    key_of,
    lines_of,
    loaded,
    loaded_of,
    policy,
    print_faults,
    same_history,
    same_tensors,
    small,
    without,
)

import sealkit
from sealkit import inner_loop
from sealkit.inner_loop import Trial, collate, optimizer_step, pack, run_trials
from sealkit.models.choice import BUNDLED_MODEL
from sealkit.outer_loop import Iteration, excerpt, m_step, sft_example
from sealkit.runs.journal import Journal
from sealkit.selection import keep_best
from sealkit.tasks import knowledge

# --- self-edits are what a stranger wrote

MARKERS = [
    *("</s>", "<s>", "<pad>", "<unk>", "<|endoftext|>", "<|begin_of_text|>"),
    *("Notes:", "Implications:", "Question:", "Answer:", "Title:", "Passage:"),
    *("\n", "\r\n", "\n\n\n", "1. ", "- ", "**", "__", "#", "Sure! ", "\x00"),
    *("\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\u202e", "\u200f", "\u2028", "\x85"),
    *("\ud800", "\udfff", "\ufffe", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>"),
    *("&lt;", "$x^", "%s{}\\", "\t", " ", "0", "9" * 40, "é", "漢", "😀"),
]


def strange(passage):
    """{name: a self-edit that nobody should write}."""
    answers = [f"Question: {q.question} Answer: {q.answers[0]}" for q in passage.questions]
    return {
        "empty": "",
        "whitespace": " \t\n\r\n  ",
        "only digits": "1234567890" * 300,
        "one megabyte of a word": "a" * 2**20,
        "one megabyte of lines": "1. x\n" * 2**18,
        "one megabyte of newlines": "\n" * 2**20,
        "question and a megabyte of newlines": "Question: x" + "\n" * 2**20,
        "one megabyte of numbering": "1. " * 2**18,
        "control characters": "".join(map(chr, range(32))) + "word",
        "half surrogate pairs": "Pelvik \ud800 owns \udfff",
        "right to left": "\u202eabc\u200f\u2067def",
        "special tokens": "<s> Pelvik </s></s><pad> owns <unk>",
        "prompt markers": "Question: Who? Answer: me\n\nNotes: x\nTitle: y\nPassage: z",
        "answers pasted in": "\n".join(answers),
        "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "terminal escapes": "\x1b[2J\x1b]0;owned\x07\x9b31mred",
        "line separators": "one\u2028two\x85three\x0cfour",
    }


def utf16(text):
    """Bytes in which two halves of a surrogate pair are the same as the whole, as in JSON."""
    return text.encode("utf-16", "surrogatepass")


def check_rows(tokenizer, passage, edits, most):
    """Everything between text and batch keeps its bounds."""
    config = replace(sealkit.config_for(tokenizer), max_tokens=most)
    policy, packed, size = SimpleNamespace(tokenizer=tokenizer, config=config), [], len(tokenizer)
    known = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for edit in edits:
        sequences = sealkit.training_sequences(edit, passage)
        assert sequences[0] == f"{passage.title}\n{passage.text}"
        assert all(line.strip() and "\n" not in line for line in sequences[1:])
        ids, positions = pack(policy, sequences)
        assert 0 < len(ids) == len(positions) <= most and max(ids) < size and positions[0] == 0
        steps = zip(positions, positions[1:])
        assert all(after in (before + 1, 0) for before, after in steps)
        for i, token in enumerate(ids):
            ends = i + 1 == len(ids) or positions[i + 1] == 0
            assert token not in known or ends or positions[i] == 0, "a special token within a text"
        line = json.dumps({"self_edit": edit})
        assert line.isascii() and "\x1b" not in line
        assert utf16(json.loads(line)["self_edit"]) == utf16(edit)
        assert excerpt(edit).isprintable() and len(excerpt(edit)) < 400
        packed.append((ids, positions))
    inputs, labels = collate(packed, tokenizer.pad_token_id, "cpu")
    assert inputs["input_ids"].shape == inputs["position_ids"].shape == labels.shape
    assert (labels >= -100).all() and labels.max() < size
    assert ((labels != -100).sum(1) < torch.tensor([len(ids) for ids, _ in packed])).all()


@pytest.fixture(scope="module")
def tokenizers(loaded):
    return [loaded[1], *map(with_pad, map(tokenizer_like, CONFIGS))]


def with_pad(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def test_each_strange_self_edit_is_trained_on_within_bounds(policy, tokenizers, tmp_path):
    passage = sealkit.load_passages("bundled", limit=1)[0]
    small_policy(*loaded_of(policy), steps=5, max_tokens=256)
    edits = strange(passage)
    for tokenizer in tokenizers:
        check_rows(tokenizer, passage, edits.values(), 512)
    trials = sealkit.evaluate_self_edits(*loaded_of(policy), passage, list(edits.values()))
    for name, trial in zip(edits, trials, strict=True):
        said = f"{trial.tokens} tokens trained on, reward {trial.reward:.0%}"
        FAULTS.append((f"self-edit: {name}", said))
        assert 0 <= trial.reward <= 1 and trial.tokens <= 256 and not trial.reason
        assert len(trial.losses) == 5 and all(map(isfinite, trial.losses))
    rewards = dict(zip(edits, (trial.reward for trial in trials)))
    assert rewards["answers pasted in"] > rewards["empty"]  # allowed: it is learning
    Journal(tmp_path).update({("trial", name): asdict(one) for name, one in zip(edits, trials)})
    assert Journal(tmp_path) == {("trial", name): asdict(one) for name, one in zip(edits, trials)}
    assert (tmp_path / "journal.jsonl").read_bytes().isascii()
    for edit in edits.values():
        ids, labels = sft_example(policy, knowledge.prompt(passage, policy.config), edit[:2000])
        assert len(ids) == len(labels) and labels[-1] == policy.tokenizer.eos_token_id


def test_html_and_terminal_escapes_are_shown_and_not_obeyed(validation):
    """In the log, which goes to a terminal, as escaped characters; in a notebook, whose cells print
    self-edits, as text."""
    import nbformat
    from nbconvert import HTMLExporter

    edits = list(strange(validation[0]).values())
    trials = tuple(Trial(edit, 0.0, [], [1.0], 1) for edit in edits)
    name = "\x1b[2J<b>\u202e"
    log = str(Iteration(1, (name,), (0.0,), (0.0,), (trials,), (), (), {}))
    lines = log.removesuffix("\n").split("\n")
    assert len(lines) == 3 + len(edits)
    assert all(line.isprintable() and len(line) < 600 for line in lines)
    shown = "".join(edit.encode("utf-8", "replace").decode() for edit in edits if len(edit) < 9999)
    output = nbformat.v4.new_output("stream", name="stdout", text=shown)
    cell = nbformat.v4.new_code_cell("print(edit)", outputs=[output])
    html, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert "&lt;script&gt;alert(1)" in html
    assert "<script>alert(1)" not in html and "<img src=x" not in html


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
SELF_EDITS = st.lists(st.one_of(ANY_TEXT, st.sampled_from(MARKERS)), max_size=12).map("".join)


def test_10_000_fuzzed_self_edits(policy, tokenizers, validation, capsys):
    """Parsing and batching of all; the inner loop and the M-step on a sample of them."""
    sample, count = [], 0

    @settings(
        max_examples=520,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(SELF_EDITS, min_size=20, max_size=20),
        st.sampled_from(range(len(tokenizers))),
        st.sampled_from([40, 128, 512]),
    )
    def parse_and_batch(edits, which, most):
        nonlocal count
        check_rows(tokenizers[which], validation[1], edits, most)
        count += len(edits)
        sample.extend(edits[:1])

    parse_and_batch()
    config = replace(policy.config, steps=1, max_tokens=160, adapters_per_pass=25)
    policy, chosen = replace(policy, config=config), sorted(set(sample), key=len)[-120:]
    trials = run_trials(policy, knowledge, [(validation[1], edit) for edit in chosen])
    for trial in trials:
        assert 0 <= trial.reward <= 1 and isfinite(trial.losses[0]) and trial.tokens <= 160
    prompt = knowledge.prompt(validation[1], config)
    losses = m_step(policy, [(prompt, edit) for edit in random.Random(0).sample(chosen, 8)])
    assert len(losses) == 2 and all(map(isfinite, losses))
    with capsys.disabled():
        print(f"\nfuzzed self-edits: {count} parsed and batched, ", end="")
        print(f"{len(trials)} of them trained on and examined, 0 failures")
    assert count >= 10_000


# --- no code runs from data


def test_no_way_from_data_to_code():
    package = Path(sealkit.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    for path in (package.parent / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        sources[path] = "\n".join(code)
    assert len(sources) > 15
    ways = (
        r"trust_remote_code(?!(?:\": |=)False)|pickle|torch\.load\b|weights_only"
        r"|(?<![\w.`])(?:eval|exec|compile|__import__)\(|os\.system|os\.popen|subprocess"
        r"|shell=True|joblib|dill\b|yaml\.load"
    )
    found = {path.name: re.findall(ways, text) for path, text in sources.items()}
    pip = {"smollm2.py": ["subprocess"] * 2}  # which fetches one package, named in the code
    assert {name: ways for name, ways in found.items() if ways} == pip
    shown = r"HTML\(|Markdown\(|Javascript\(|_repr_html_"
    notebooks = {path.name: text for path, text in sources.items() if path.suffix == ".ipynb"}
    found = {name for name, text in notebooks.items() if re.search(shown, text)}
    assert not found, "a self-edit must never reach a notebook as HTML"


@pytest.mark.parametrize("kind", ["pickle", "code for a known type", "code for a new type"])
def test_a_malicious_checkpoint_runs_nothing(kind, tmp_path, monkeypatch):
    """Not even if the user says yes to whatever is asked."""
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    folder = Path(shutil.copytree(BUNDLED_MODEL, tmp_path / "model"))
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    if kind == "pickle":
        for path in folder.glob("*.safetensors"):
            path.unlink()
        torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    else:
        names = "MistralForCausalLM as Evil, MistralConfig as EvilConfig"
        code = f"open({str(marker)!r}, 'w')\nfrom transformers import {names}\n"
        (folder / "evil.py").write_text(code)
        classes = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"}
        config = json.loads((folder / "config.json").read_text()) | {"auto_map": classes}
        if kind == "code for a new type":
            config |= {"model_type": "evil", "architectures": ["Evil"]}
        (folder / "config.json").write_text(json.dumps(config))
    if kind == "code for a known type":
        model, _ = sealkit.load_quantized(folder)
        assert type(model).__module__.startswith("transformers.")
    else:
        with pytest.raises(ValueError, match="No model could be loaded") as raised:
            sealkit.load_quantized(folder)
        said = str(raised.value).replace(str(folder), "MODEL")
        FAULTS.append((f"checkpoint with {kind}", said))
    assert not marker.exists()


# --- a loss that is not finite


def test_a_diverging_adapter_scores_0_and_harms_nobody(policy, validation, monkeypatch):
    policy = replace(policy, config=replace(policy.config, steps=3))
    pairs, start = [(passage, passage.oracle) for passage in validation[:4]], policy.weights()
    fork, healthy = inner_loop.fork, run_trials(policy, knowledge, pairs)
    order = sorted(range(4), key=lambda i: healthy[i].tokens)

    def fork_with(value):
        def forked(model, k):
            adapters = fork(model, k)
            next(iter(adapters.values()))[1].data[1] = value
            return adapters

        return forked

    reason = "training diverged at step 1: its loss or gradient was not finite"
    for value in (torch.nan, torch.inf, 1e30):
        monkeypatch.setattr(inner_loop, "fork", fork_with(value))
        trials = run_trials(policy, knowledge, pairs)
        bad = trials[order[1]]
        assert bad.reward == 0 and bad.reason == reason and bad.losses == []
        assert bad.answers == [""] * len(validation[order[1]].questions)
        others = [i for i in order if i != order[1]]
        assert [trials[i] for i in others] == [healthy[i] for i in others]
    FAULTS.append(("a loss of nan, or infinite", f"reward 0, {bad.reason}"))
    assert same_tensors(policy.weights(), start)


def steps_in_fp16(factors, first=2.0**16, count=3):
    """Where AdamW goes in `count` steps down loss i, factors[i] times weight i, computed in fp16:
    (weights, diverged, scales)."""
    weights = torch.nn.Parameter(torch.ones(len(factors), 1))
    optimizer = torch.optim.AdamW([weights], lr=0.5, weight_decay=0)
    scale, diverged = torch.full((len(factors),), first), torch.zeros(len(factors), dtype=bool)
    factors = torch.tensor(factors).half()
    for _ in range(count):

        def loss():
            return (weights[:, 0].half() * factors).float().nan_to_num(posinf=1e5)

        optimizer_step(optimizer, scale, [loss], diverged)
    return weights.detach()[:, 0], diverged.tolist(), scale.tolist()


def test_in_fp16_an_overflow_is_not_the_neighbours_business():
    """Gradients of adapters 1 and 3 overflow, at every scale and at first: the others take the
    steps, and keep the scales, that they have without them."""
    rows = [0.01, torch.inf, 3e-4, 100.0, 0.7]
    weights, diverged, scales = steps_in_fp16(rows)
    assert diverged == [False, True, False, False, False]
    assert scales == [2.0**15, 1.0, 2.0**15, 2.0**9, 2.0**15]  # 2.0**16 is infinite in fp16
    for i in (0, 2, 3, 4):
        alone, _, scale = steps_in_fp16(rows[i : i + 1])
        assert torch.equal(weights[i : i + 1], alone) and scale == scales[i : i + 1]
        assert alone != 1
    assert weights[1] == 1, "what diverged has no gradient"


def test_a_run_in_which_everything_diverges_ends_with_the_first_policy(small, policy, tmp_path):
    passages = sealkit.load_passages("bundled", limit=1)
    run, changes = tmp_path / "run", {"learning_rate": 1e30, "steps": 3}
    history = small(run, iterations=1, passages=passages, **changes)
    (iteration,) = history.iterations
    assert iteration.mean_reward == 0 and all(trial.reason for trial in iteration.trials[0])
    assert same_tensors(policy.weights(), history.start)
    assert str(iteration).count("training diverged at step 2") == 2
    assert "policy unchanged" in str(iteration)
    assert same_history(small(run, iterations=1, passages=passages, **changes), history)


def test_a_diverging_m_step_is_an_error_that_keeps_the_trials(tmp_path, small):
    passages, folder = sealkit.load_passages("bundled", limit=1), tmp_path / "run"
    changes = {"steps": 1, "m_step_learning_rate": 1e30, "keep": keep_best, "epochs": 2}
    with pytest.raises(FloatingPointError, match="lower learning rate") as raised:
        small(folder, passages=passages, **changes)
    FAULTS.append(("an M-step that diverges", str(raised.value)))
    assert [key_of(line)[0] for line in lines_of(folder)].count("trial") == 3
    assert not (folder / "policy_1").exists()
    before = content(folder)
    with pytest.raises(FloatingPointError):  # and again, of what is there
        small(folder, passages=passages, **changes)
    assert content(folder) == before


def test_the_table_of_faults(capsys):
    with capsys.disabled():
        print_faults()
