"""A whole small run: only the LoRA changes, it repeats bit for bit, its record can be checked."""

from dataclasses import replace
from functools import partial
from itertools import islice

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

import sealkit
from sealkit.inner_loop import run_trials
from sealkit.outer_loop import excerpt, m_step, seal, sft_example
from sealkit.selection import keep_best, keep_best_above_baseline
from sealkit.tasks import knowledge
from sealkit.tasks.knowledge import BUNDLED_CONFIG

QUICK = replace(BUNDLED_CONFIG, steps=4, keep=keep_best_above_baseline)  # in 4 steps few earn 75%


def new_policy(config=QUICK, seed=1):
    """(PeftModel, tokenizer)."""
    model, tokenizer = sealkit.load_quantized()
    return sealkit.attach_policy(model, config, seed), tokenizer


@pytest.fixture(scope="module")
def small_run(tmp_path_factory, base_bytes):
    """Two iterations over three training passages with two self-edits each."""
    model, tokenizer = new_policy()
    before, folder = base_bytes(model), tmp_path_factory.mktemp("run") / "a"
    passages = sealkit.load_passages("bundled", limit=3)
    history = sealkit.run_seal(model, tokenizer, passages, 2, 2, folder, 1)
    assert base_bytes(history.model) == before
    return folder, passages, history


def test_only_lora_tensors_change(small_run):
    """Within `small_run`: not the base, to the byte; of the LoRA everything."""
    *_, history = small_run
    assert all("lora_" in name for name in history.start)
    assert history.iterations[-1].kept, "nothing was learned, so this run shows nothing"
    for name, tensor in history.iterations[-1].weights.items():
        assert not torch.equal(tensor, history.start[name])
        module, matrix = name.removesuffix(".weight").rsplit(".", 1)
        own = history.model.get_submodule(f"{module}.{matrix}.default").weight
        assert torch.equal(tensor, own), "the model is left with the last policy"


def test_a_run_repeats_bit_for_bit(small_run):
    """On a plain model, which is given the same policy; the loop asked as a generator."""
    _, passages, history = small_run
    model, tokenizer = new_policy()
    iterations = seal(sealkit.Policy(model, tokenizer, QUICK), knowledge, passages, 2, 1)
    for a, b in zip(history.iterations, islice(iterations, 2), strict=True):
        assert a == replace(b, weights=a.weights)
        assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_saved_rewards_equal_a_recomputation(small_run):
    """From self-edits and policies on record alone, the latter through stock PEFT."""
    folder, passages, history = small_run
    journal = sealkit.Journal(folder)
    for t in (1, 2):
        keys = [key for key in journal if key[:2] == ("trial", t)]
        assert len(keys) == 3 * (1 + 2)
        record = [journal[key] for key in keys]
        pairs = [(passages[key[2]], row["self_edit"]) for key, row in zip(keys, record)]
        model, tokenizer = sealkit.load_quantized()
        model = PeftModel.from_pretrained(model, folder / f"policy_{t - 1}").eval()
        trials = run_trials(sealkit.Policy(model, tokenizer, QUICK), knowledge, pairs)
        assert [trial.reward for trial in trials] == [row["reward"] for row in record]
        iteration = history.iterations[t - 1]
        for (*_, i, j), row in zip(keys, record):
            assert knowledge.reward(passages[i], row["answers"], QUICK) == row["reward"]
            told = iteration.item_only_rewards[i] if j is None else iteration.trials[i][j].reward
            assert told == row["reward"]


def test_kept_is_what_the_rule_says(small_run):
    for iteration in small_run[2].iterations:
        for i, (group, alone) in enumerate(zip(iteration.trials, iteration.item_only_rewards)):
            rewards = [trial.reward for trial in group]
            kept = [j for p, j in iteration.kept if p == i]
            assert kept == ([rewards.index(max(rewards))] if max(rewards) > alone else [])


def test_the_story_is_told(small_run):
    _, passages, history = small_run
    for number, iteration in enumerate(history.iterations, 1):
        lines = str(iteration).splitlines()
        assert f"SEAL iteration {number} (ReSTEM)" in lines[0]
        assert sum("QLoRA SFT on self-edit" in line for line in lines) == 6
        assert sum("(kept)" in line for line in lines) == len(iteration.kept)
        assert ("Policy updated" in lines[-1]) == bool(iteration.kept)
        assert ("policy unchanged" in lines[-1]) == (not iteration.kept)
        assert all(any(excerpt(p.title) in line for line in lines) for p in passages)


def test_bad_arguments(loaded, validation):
    for arguments, message in (({"k": 0}, "k is 0"), ({"iterations": 0}, "iterations is 0")):
        with pytest.raises(ValueError, match=message):
            sealkit.run_seal(*loaded, validation[:1], **arguments)
    with pytest.raises(ValueError, match="no passages"):
        sealkit.run_seal(*loaded, [])
    with pytest.raises(ValueError, match="has no questions"):
        sealkit.run_seal(*loaded, [sealkit.Passage("T", "x", ())])
    assert not any("lora_" in name for name, _ in loaded[0].named_parameters())


def sorted_best(count, rewards, alone):
    """The best few."""
    return sorted(range(len(rewards)), key=lambda j: -rewards[j])[:count]


def test_a_selection_rule_may_be_any_function(tmp_path):
    config = replace(BUNDLED_CONFIG, steps=1, epochs=1, keep=partial(sorted_best, 1))
    passages, folder = sealkit.load_passages("bundled", limit=1), tmp_path / "run"
    history = sealkit.run_seal(*new_policy(config), passages, 1, 2, folder)
    assert len(history.iterations[0].kept) == 1 and '"partial"' in (folder / "run.json").read_text()
    with pytest.raises(sealkit.RunError, match="keep is partial there and keep_best here"):
        config = replace(config, keep=keep_best)
        sealkit.run_seal(*new_policy(config), passages, 1, 2, folder)


# --- the M-step


def prompted(passages):
    """(prompt, oracle) of some passages."""
    return [(knowledge.prompt(passage, BUNDLED_CONFIG), passage.oracle) for passage in passages]


def test_m_step_loss_counts_the_self_edit_alone(policy, validation):
    tokenizer, (example,) = policy.tokenizer, prompted(validation[:1])
    ids, labels = sft_example(policy, *example)
    learned = ids[labels != -100]
    assert tokenizer.decode(learned[:-1]).strip() == validation[0].oracle
    assert learned[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[labels == -100], skip_special_tokens=True).strip() == example[0]


def test_m_step_makes_what_was_kept_likelier(policy, validation):
    six = replace(policy, config=replace(policy.config, epochs=6))
    losses = m_step(six, prompted(validation[:4]))
    assert len(losses) == 6 and losses[-1] < 0.8 * losses[0]
    assert m_step(policy, []) == []


def test_a_batch_in_parts_goes_the_same_way(policy, exact, validation):
    start, ends = policy.weights(), []
    for rows in (4, 1):
        policy.load(start)
        some = replace(policy, config=replace(policy.config, epochs=2, rows_per_pass=rows))
        ends.append((m_step(some, prompted(validation[:3])), policy.weights()))
    (whole, weights), (parts, others) = ends
    assert whole == pytest.approx(parts, rel=1e-4) and whole[1] < whole[0]
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], atol=2e-4, rtol=1e-2)


def test_m_step_is_not_moved_by_gradients_left_behind(policy, validation):
    start, three = policy.weights(), replace(policy, config=replace(policy.config, epochs=3))
    first = m_step(three, prompted(validation[:1]))
    policy.load(start)
    for name, parameter in policy.model.named_parameters():
        if "lora_" in name:
            parameter.grad = torch.ones_like(parameter)
    assert m_step(three, prompted(validation[:1])) == first


@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_policys_dropout_never_acts(model_and_tokenizer, validation, checkpointing):
    """Neither under checkpointing, when layers are in training mode, nor as PEFT hands it over."""
    model, tokenizer = model_and_tokenizer
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", lora_dropout=0.5)
    config = replace(knowledge.config_for(tokenizer), checkpointing=checkpointing, epochs=2)
    policy = sealkit.Policy(get_peft_model(model, lora), tokenizer, config)
    start, examples = policy.weights(), [("The lamp:", "It burns."), ("The tower:", "It is high.")]
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        policy.load(start)
        policy.model.train()
        losses.append(m_step(policy, examples))
    assert losses[0] == losses[1] and losses[0][-1] < losses[0][0]
