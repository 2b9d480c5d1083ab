"""Intervals that mean what they say; arms that differ where they should."""

import numpy as np
import pytest

import sealkit
from sealkit.evaluation import bootstrap_interval


def test_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.binomial(6, 0.7, 60) / 6, seed=i) for i in range(200)]
    assert all(low <= mean <= high for mean, low, high in intervals)
    assert 0.89 <= np.mean([low <= 0.7 <= high for _, low, high in intervals]) <= 0.99


def test_difference_is_paired():
    easy_and_hard = np.random.default_rng(1).random(50) * 0.8
    comparison = sealkit.Comparison({"a": tuple(easy_and_hard), "b": tuple(easy_and_hard + 0.1)})
    mean, low, high = comparison.difference("b", "a")
    assert low == pytest.approx(mean) and mean == pytest.approx(0.1) and high == pytest.approx(0.1)
    _, low, high = comparison.accuracy("a")
    assert high - low > 0.05
    assert "50 passages" in str(comparison)


def test_compare_has_every_arm_and_leaves_the_policy(model_and_tokenizer, validation):
    from sealkit.outer_loop import policy_tensors

    model, tokenizer = model_and_tokenizer
    policy = sealkit.attach_policy(model)
    before = policy_tensors(policy)
    other = {name: tensor + 0.01 for name, tensor in before.items()}
    table = sealkit.compare(policy, tokenizer, validation[:4], {"start": before, "other": other}, sealkit.Settings(steps=3), styles=("gist",))
    assert list(table.scores) == ["no adaptation", "passage in context", "passage only", "prompt for gist, no RL", "start", "other", "oracle"]
    assert all(len(scores) == 4 and all(0 <= s <= 1 for s in scores) for scores in table.scores.values())
    after = policy_tensors(policy)
    assert all((after[name] == before[name]).all() for name in before)
    with pytest.raises(ValueError, match="No self-edit style 'poem'"):
        sealkit.compare(policy, tokenizer, validation[:1], styles=("poem",))
