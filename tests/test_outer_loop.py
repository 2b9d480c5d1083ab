"""A whole small run: only the LoRA changes, it repeats bit for bit, and its record can be checked."""

import json
from functools import partial

import pytest
import torch
from peft import PeftModel, set_peft_model_state_dict

import sealkit
from sealkit.exam import accuracy
from sealkit.inner_loop import attach_policy, run_trials
from sealkit.outer_loop import best, best_if_better, every_better, m_step, policy_tensors, supervised_ids

QUICK = sealkit.Settings(steps=6)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory, base_bytes):
    """Two iterations over three training passages with two self-edits each."""
    model, tokenizer = sealkit.load_quantized()
    before, folder, lines = base_bytes(model), tmp_path_factory.mktemp("run") / "a", []
    passages = sealkit.load_passages("bundled", limit=3)
    history = sealkit.run_seal(model, tokenizer, passages, 2, 2, folder, 5, QUICK, log=lines.append)
    return {"before": before, "folder": folder, "lines": lines, "passages": passages, "history": history, "tokenizer": tokenizer}


def test_only_lora_tensors_change(small_run, base_bytes):
    history = small_run["history"]
    assert base_bytes(history.policy) == small_run["before"]
    assert all("lora_" in name for name in history.start)
    if history.iterations[-1].kept:
        last, first = history.iterations[-1].policy, history.start
        assert all(not torch.equal(last[name], first[name]) for name in first)


def test_a_run_repeats_bit_for_bit(small_run):
    again = sealkit.run_seal(*sealkit.load_quantized(), small_run["passages"], 2, 2, seed=5, settings=QUICK)
    for a, b in zip(small_run["history"].iterations, again.iterations, strict=True):
        assert a.trials == b.trials and a.kept == b.kept and a.losses == b.losses
        assert all(torch.equal(a.policy[name], b.policy[name]) for name in a.policy)


def test_saved_rewards_equal_a_recomputation(small_run):
    """From the saved self-edits and policies alone: the first iteration's trials give the rewards on record."""
    rows = [json.loads(line) for line in open(small_run["folder"] / "trials.jsonl", encoding="utf-8")]
    assert len(rows) == 2 * 3 * (1 + 2)
    first = [row for row in rows if row["iteration"] == 1]
    model, tokenizer = sealkit.load_quantized()
    pairs = [(small_run["passages"][row["passage"]], row["self_edit"]) for row in first]
    trials = run_trials(attach_policy(model, QUICK, 5), tokenizer, pairs, QUICK)
    assert [trial.reward for trial in trials] == [row["reward"] for row in first]
    second = [row for row in rows if row["iteration"] == 2]
    policy = PeftModel.from_pretrained(sealkit.load_quantized()[0], small_run["folder"] / "policy_1").eval()
    pairs = [(small_run["passages"][row["passage"]], row["self_edit"]) for row in second]
    trials = run_trials(policy, tokenizer, pairs, QUICK)
    assert [trial.reward for trial in trials] == [row["reward"] for row in second]
    for row in rows:
        assert accuracy(row["answers"], small_run["passages"][row["passage"]]) == row["reward"]


def test_kept_is_what_the_rule_says(small_run):
    for iteration in small_run["history"].iterations:
        for i, (group, passage_only) in enumerate(zip(iteration.trials, iteration.passage_only)):
            rewards = [trial.reward for trial in group]
            kept = [j for p, j in iteration.kept if p == i]
            assert kept == ([rewards.index(max(rewards))] if max(rewards) > passage_only else [])


def test_the_story_is_told(small_run):
    text = "\n".join(small_run["lines"])
    assert "SEAL iteration 1 of 2" in text and text.count("QLoRA SFT on self-edit") == 12
    assert text.count("Policy updated") + text.count("policy unchanged") == 2


def test_bad_arguments(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    for kwargs, message in (({"k": 0}, "k is 0"), ({"iterations": 0}, "iterations is 0")):
        with pytest.raises(ValueError, match=message):
            sealkit.run_seal(model, tokenizer, validation[:1], **kwargs)
    with pytest.raises(ValueError, match="no passages"):
        sealkit.run_seal(model, tokenizer, [])
    with pytest.raises(ValueError, match="has no questions"):
        sealkit.run_seal(model, tokenizer, [sealkit.Passage("T", "x", ())])


def test_a_selection_rule_may_be_any_function(tmp_path):
    rule = partial(sorted_best, 1)
    passages = sealkit.load_passages("bundled", limit=1)
    history = sealkit.run_seal(*sealkit.load_quantized(), passages, 1, 2, tmp_path / "run", settings=sealkit.Settings(steps=1), keep=rule)
    assert len(history.iterations[0].kept) == 1 and json.loads((tmp_path / "run" / "run.json").read_text())["keep"] == "partial"


def sorted_best(count, rewards, passage_only):
    """The best few."""
    return sorted(range(len(rewards)), key=lambda j: -rewards[j])[:count]


def test_selection_rules():
    assert best_if_better([0.1, 0.5, 0.5], 0.3) == [1] and best_if_better([0.1, 0.3], 0.3) == []
    assert best([0.1, 0.3], 0.9) == [1]
    assert every_better([0.5, 0.1, 0.4], 0.3) == [0, 2]


def test_selection_on_the_papers_rewards(paper):
    """Round 1 of the paper: its code keeps 50 self-edits; in 10 of 50 passages the best did not beat the unadapted model."""
    rows = paper("restem_round1.jsonl")
    kept = {rule: 0 for rule in (best, best_if_better)}
    for row in rows:
        rewards = [completion["adapter_mean"] for completion in row["completions"]]
        for rule in kept:
            chosen = rule(rewards, row["completions"][0]["baseline_mean"])
            kept[rule] += len(chosen)
            assert all(rewards[j] == max(rewards) for j in chosen)
    assert kept == {best: 50, best_if_better: 40}


def test_m_step_loss_counts_the_self_edit_alone(model_and_tokenizer, validation):
    _, tokenizer = model_and_tokenizer
    ids, labels = supervised_ids(tokenizer, validation[0], validation[0].oracle)
    learned = ids[labels != -100]
    assert tokenizer.decode(learned[:-1]).strip() == validation[0].oracle and learned[-1] == tokenizer.eos_token_id


def test_m_step_makes_what_was_kept_likelier(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    policy = attach_policy(model)
    losses = m_step(policy, tokenizer, [(p, p.oracle) for p in validation[:4]], sealkit.Reinforcement(epochs=6))
    assert len(losses) == 6 and losses[-1] < 0.8 * losses[0]
    assert m_step(policy, tokenizer, []) == []


def test_m_step_is_not_moved_by_gradients_left_behind(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    policy, kept = attach_policy(model), [(validation[0], validation[0].oracle)]
    start = policy_tensors(policy)
    first = m_step(policy, tokenizer, kept, sealkit.Reinforcement(epochs=3))
    set_peft_model_state_dict(policy, start)
    for name, parameter in policy.named_parameters():
        if "lora_" in name:
            parameter.grad = torch.ones_like(parameter)
    assert m_step(policy, tokenizer, kept, sealkit.Reinforcement(epochs=3)) == first
