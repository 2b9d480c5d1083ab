"""Intervals that mean what they say; arms that differ where they should."""

from dataclasses import replace

import numpy as np
import pytest

import sealkit
from sealkit.evaluation import bootstrap_interval, compare_arms
from sealkit.tasks import knowledge


@pytest.fixture
def quick(policy):
    """The policy with a recipe of 3 steps, for the public functions too."""
    config = replace(policy.config, steps=3)
    policy.model.seal_config = config
    yield replace(policy, config=config)
    policy.model.seal_config = policy.config


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
    assert "50 items" in str(comparison) and len(str(comparison).splitlines()) == 3


def test_compare_has_every_arm_and_leaves_the_policy(quick, validation):
    before = quick.weights()
    policies = {"start": before, "other": {name: x + 0.01 for name, x in before.items()}}
    given = quick.model, quick.tokenizer, validation[:4]
    cache = {}
    table = sealkit.compare(*given, policies, styles=("gist",), cache=cache)
    arms = "no adaptation", "passage in context", "passage only", "prompt for gist, no RL"
    assert list(table.scores) == [*arms, "start", "other", "oracle"]
    for scores in table.scores.values():
        assert len(scores) == 4 and all(0 <= score <= 1 for score in scores)
    after = quick.weights()
    assert all((after[name] == before[name]).all() for name in before)
    assert all(key[0] in ("arm", "text") for key in cache)
    with pytest.raises(ValueError, match="No self-edit style 'poem'"):
        sealkit.compare(*given, styles=("poem",))
    with pytest.raises(ValueError, match="has no questions"):
        sealkit.compare(*given[:2], [sealkit.Passage("T", "x", ())])


def test_an_arm_that_is_known_is_not_run_again(quick, validation, monkeypatch):
    """By what it depends on: another seed's, other passages' or another policy's is another's."""
    cache, own = {}, {"start": quick.weights()}
    table = compare_arms(quick, knowledge, validation[:2], own, cache=cache)
    monkeypatch.setattr(sealkit.Policy, "write", lambda *args, **options: pytest.fail("written"))
    assert compare_arms(quick, knowledge, validation[:2], own, cache=cache) == table
    other = {"start": {name: tensor + 0.01 for name, tensor in own["start"].items()}}
    for arguments in (
        (validation[1:3], own),
        (validation[:2], other),
        (validation[:2], own, (), 1),
    ):
        with pytest.raises(pytest.fail.Exception, match="written"):
            compare_arms(quick, knowledge, *arguments, cache=cache)


def test_passages_without_an_oracle_have_no_arm_for_it(quick, validation):
    passages = [replace(validation[0], oracle="")]
    table = sealkit.compare(quick.model, quick.tokenizer, passages)
    assert list(table.scores)[-1] == "self-edits before RL"


def test_a_table_of_many_arms_fits_a_terminal():
    names = "no adaptation", "questions, no RL, longest of five..."
    scores = dict.fromkeys(names, (0.0, 1.0))
    lines = str(sealkit.Comparison(scores, costs={names[1]: (5, 150)})).splitlines()
    assert max(map(len, lines)) <= 80 and lines[-1] == "(2 items)"
    assert "(2 items)" in str(sealkit.Comparison(scores)).splitlines()[0]
