"""Many passages in one adapter: the trial that one alone has, and every passage in company."""

from dataclasses import replace

import pytest
import torch

import sealkit
from sealkit.cli.main import main
from sealkit.cli.record import read_record
from sealkit.evaluation import together as module
from sealkit.evaluation.together import Together, learn_together, run_together
from sealkit.inner_loop import run_trials
from sealkit.tasks import knowledge


def pairs_of(passages):
    return [(passage, passage.oracle) for passage in passages]


def test_alone_in_its_adapter_a_passage_has_the_trial_of_the_inner_loop(policy, exact, validation):
    pairs, steps = pairs_of(validation[:3]), policy.config.steps
    alone = run_together(policy, knowledge, pairs, Together(1, epochs=steps, batch_size=1))
    for ours, theirs in zip(alone, run_trials(policy, knowledge, pairs), strict=True):
        assert ours.answers == theirs.answers and ours.reward == theirs.reward > 0
        assert ours.losses == pytest.approx(theirs.losses, abs=1e-4)
        assert ours.tokens == theirs.tokens


def test_groups_side_by_side_are_trained_as_if_by_themselves(policy, exact, validation):
    lessons = [knowledge.lesson(*pair, policy.config) for pair in pairs_of(validation[:4])]
    both, losses, _ = learn_together(
        policy, [lessons[:2], lessons[2:]], Together(2, epochs=2, batch_size=2)
    )
    for place, group in enumerate((lessons[:2], lessons[2:])):
        own, (curve,), _ = learn_together(policy, [group], Together(2, epochs=2, batch_size=2))
        assert losses[place] == pytest.approx(curve, abs=1e-4) and len(curve) == 2
        for name, matrices in own.items():
            for mine, of_both in zip(matrices, both[name]):
                assert torch.allclose(mine[0], of_both[place], atol=2e-4)


def test_all_are_examined_once_each_by_the_adapter_of_its_own_group(policy, validation):
    """Three a group of five: the last two have the first for company, which is not asked again."""
    pairs, three = pairs_of(validation[:5]), Together(3, epochs=6)
    found = run_together(policy, knowledge, pairs, three)
    assert [trial.self_edit for trial in found] == [edit for _, edit in pairs]
    assert found[0].losses == found[2].losses != found[3].losses == found[4].losses
    last = run_together(policy, knowledge, [*pairs[3:], pairs[0]], three)
    assert [trial.answers for trial in last[:2]] == [trial.answers for trial in found[3:]]
    assert last[0].losses == pytest.approx(found[3].losses, abs=0.02)  # in the same company
    assert sum(trial.reward for trial in found) / 5 > 0.5  # closed book it is 0.05


def test_where_memory_runs_out_the_groups_stay_whole(policy, validation, monkeypatch):
    pairs = pairs_of(validation[:4])
    whole = run_together(policy, knowledge, pairs, Together(4, epochs=2))
    ask, sizes = module.ask, []

    def small(policy, adapters, exams):
        sizes.append(sum(map(len, exams)))
        if sizes[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return ask(policy, adapters, exams)

    monkeypatch.setattr(module, "ask", small)
    assert run_together(policy, knowledge, pairs, Together(4, epochs=2)) == whole
    assert sizes[0] == 16 and sizes[-1] == 8


def test_what_is_there_is_not_learned_again(policy, validation, monkeypatch):
    pairs, cache = pairs_of(validation[:2]), {}
    first = run_together(policy, knowledge, pairs, Together(2, 1), cache)
    monkeypatch.setattr(module, "learn_together", lambda *a: pytest.fail("learned again"))
    assert run_together(policy, knowledge, pairs, Together(2, 1), cache) == first


def test_bad_input_is_one_sentence(policy, validation):
    for size in (0, 3):
        with pytest.raises(ValueError, match=f"{size} items cannot share .* there are 2: take a"):
            run_together(policy, knowledge, pairs_of(validation[:2]), Together(size))
    wild = replace(policy, config=replace(policy.config, learning_rate=1e30))
    before = policy.weights()
    with pytest.raises(FloatingPointError, match="2 items in one adapter diverged: take a lower"):
        run_together(wild, knowledge, pairs_of(validation[:2]), Together(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.weights().items())


def test_compare_together_has_the_arms_of_compare(loaded, validation):
    table = sealkit.compare_together(*loaded, validation[:2], Together(2, 1), styles=("gist",))
    plain = sealkit.compare(*loaded, validation[:2], styles=("gist",))
    assert list(table.scores) == list(plain.scores)
    assert table.scores["passage in context"] == plain.scores["passage in context"]
    assert "2 at a time in one adapter: 1 epoch, 4 a gradient step" in str(table)


def test_the_command_line_shares_adapters_and_goes_on(tmp_path, capsys, monkeypatch):
    sizes = "--passages 2 --self-edits 2 --iterations 1 --held-out 3".split()
    words = [*sizes, "--output", str(tmp_path / "run")]
    assert main([*words, "--together", "4"]) == 2
    assert "4 items cannot share an adapter, since there are 3" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words, "--together", "2"]) == 0
    assert "(2 at a time in one adapter: 8 epochs, 4 a gradient step)" in capsys.readouterr().out
    shared = read_record(tmp_path / "run")
    monkeypatch.setattr(module, "learn_together", lambda *a: pytest.fail("learned again"))
    assert main([*words, "--together", "2"]) == 0
    assert read_record(tmp_path / "run").comparison == shared.comparison
    assert main(words) == 0  # each passage its own adapter, in the same folder
    assert read_record(tmp_path / "run").comparison.notes == ()
