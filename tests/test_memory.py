"""The memory of a pass on Mistral-7B's shape, computed; and that the ledger counts as it should."""

from collections import Counter
from dataclasses import replace

import memory
import pytest
import torch
from families import save
from memory import GIB, KINDS, REAL, Ledger, computed, on_meta, row_by_row, tensors_of, train
from transformers import MistralConfig

import sealkit
from sealkit.inner_loop import Lesson, collate, row_losses, sft
from sealkit.lora import fork, side_by_side

SMALL = MistralConfig(
    vocab_size=1024,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


def test_a_pass_of_five_adapters_on_mistral_7b_takes_at_most_9_gib(capsys):
    """Beside what CUDA itself takes; 5 rows of 512 tokens, r = 16 on all linear layers, fp16.

    As a T4 would run it. Computed, not measured.
    """
    ledger = computed(on_meta(MistralConfig()))
    kinds = ", ".join(f"{kind} {ledger.at_peak[kind] / GIB:.2f}" for kind in KINDS)
    with capsys.disabled():
        print("\n5 adapters on Mistral-7B's shape, computed, at the peak:", end=" ")
        print(f"{ledger.peak / GIB:.2f} GiB, {kinds}")
    assert ledger.peak <= 9 * GIB
    assert ledger.peak == sum(ledger.at_peak.values()) and set(ledger.at_peak) <= set(KINDS)
    assert 3.8 * GIB < ledger.at_peak["weights"] < 3.9 * GIB  # as measured elsewhere: 3.84 GiB
    assert ledger.at_peak["Adam"] == pytest.approx(2 * ledger.at_peak["adapters"], rel=1e-2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_ledger_counts_what_a_hand_counts(device):
    ledger = Ledger(device)
    with ledger:
        a = torch.zeros(256, device=device)  # 1024 bytes
        b = a * 2
        a.view(16, 16).T.add_(1)  # views and changes in place: nothing
        assert (ledger.now, ledger.peak) == (2048, 2048)
        c = (b + 1).exp()  # b + 1 lives until the exponential is there
        assert (ledger.now, ledger.peak) == (3072, 4096)
        del a, b
        assert (ledger.now, ledger.peak) == (1024, 4096)
        d = [torch.zeros(n, device=device) for n in (1, 129)]  # 4 and 516 bytes take 512 and 1024
        assert (ledger.now, ledger.peak) == (1024 + 1536, 4096)
        ledger.label([c[:2]], "Adam")
    assert ledger.held == Counter(Adam=1024, activations=1536) and d[0].numel() == 1
    del c, d
    assert ledger.now == 0 and ledger.peak == 4096


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_ledger_sees_what_autograd_keeps(device):
    """n sigmoids each keep their output; going back, gradients of two of them live at a time."""
    n, size = 6, 4096
    ledger, x = Ledger(device), torch.zeros(size // 4, device=device, requires_grad=True)
    with ledger:
        ledger.label([x], "weights")
        y = x
        for _ in range(n):
            y = y.sigmoid()
        assert ledger.now == (n + 1) * size and ledger.held == Counter(
            weights=size, activations=n * size
        )
        gradient = torch.ones_like(y)
        y.backward(gradient)
        kinds = Counter(weights=size, activations=(n + 1) * size, temporaries=2 * size)
        assert ledger.peak == (n + 4) * size and ledger.at_peak == kinds
        del y, gradient
    assert ledger.now == 2 * size and x.grad is not None


def test_the_ledger_agrees_with_torchs_own_tracker():
    """torch.distributed's MemTracker, on a training step of a small network that really runs."""
    tools = pytest.importorskip("torch.distributed._tools.mem_tracker")

    def steps(context, before=lambda model, optimizer: None):
        torch.manual_seed(0)
        layers = torch.nn.Linear(512, 2048), torch.nn.GELU(), torch.nn.Linear(2048, 512)
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(model.parameters())
        before(model, optimizer)
        with context:
            model(torch.randn(256, 512)).square().mean().backward()
            optimizer.step()

    ledger, tracker = Ledger("cpu"), tools.MemTracker()
    steps(ledger, lambda model, optimizer: ledger.label(model.parameters(), "weights"))
    steps(tracker, tracker.track_external)
    theirs = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    theirs = sum(size for kind, size in theirs.items() if "Total" not in str(kind))
    assert ledger.peak == pytest.approx(theirs, rel=0.01)


def test_weights_without_values_take_what_real_ones_take(tmp_path):
    model, tokenizer = sealkit.load_quantized(save("mistral", tmp_path), "cpu")
    assert sealkit.config_for(tokenizer) is REAL, "the tables are computed with another recipe"
    real, bare = sealkit.attach_policy(model, REAL), on_meta(model.config, torch.float32).model
    for ours, theirs in zip(tensors_of(bare), tensors_of(real)):
        sizes = [Counter((tuple(t.shape), t.dtype) for t in some) for some in (ours, theirs)]
        assert sizes[0] == sizes[1]


def test_what_pays_and_what_does_not():
    """On a small shape: keeping all activations costs most, a narrower pass and 8-bit Adam save.

    FLOP count the second forward pass.
    """
    policy, adam_8bit = on_meta(SMALL), memory.bnb.optim.AdamW8bit
    kept = computed(policy, 5, 64, checkpointing=False)
    ours, one = computed(policy, 5, 64), computed(policy, 1, 64)
    assert kept.peak > ours.peak > computed(policy, 5, 64, adam_8bit).peak > one.peak
    assert 1.3 * kept.flop < ours.flop < 1.6 * kept.flop
    assert ours.flop == pytest.approx(5 * one.flop, rel=0.05)


def test_a_real_pass_under_the_ledger_is_the_same_to_the_bit(policy, validation):
    config = replace(policy.config, steps=2, checkpointing=True)
    policy, texts = replace(policy, config=config), [p.text for p in validation[:5]]
    plain = fork(policy.model, 2)
    sft(policy, plain, [Lesson(texts[:n], 2, config.learning_rate) for n in (5, 3)])
    packed = [sealkit.inner_loop.pack(policy, texts[:n]) for n in (5, 3)]
    ledger = Ledger("cpu")
    watched = train(policy, packed, ledger)
    for name in plain:
        assert all(torch.equal(a, b) for a, b in zip(plain[name], watched[name]))
    state = sum(-(-2 * 4 * m[0].numel() // 512) * 512 for pair in watched.values() for m in pair)
    assert ledger.held["adapters"] == ledger.held["gradients"] == state


def test_loss_row_by_row_is_the_same_loss(policy):
    inputs, labels = collate([([7, 8, 9] * 9, [*range(27)]), ([4, 5] * 5, [*range(10)])], 0, "cpu")
    outcomes = []
    for way in (row_losses, row_by_row):
        adapters = fork(policy.model, 2)
        with side_by_side(policy.model, adapters):
            losses = way(policy.model, inputs, labels)
            losses.sum().backward()
        outcomes.append([losses.detach(), *(B.grad for _, B in adapters.values())])
    for ours, other in zip(*outcomes):
        torch.testing.assert_close(ours, other, atol=1e-6, rtol=1e-4)


def test_the_table_has_a_row_for_each_way(capsys):
    memory.tables(SMALL)
    lines = [row for row in capsys.readouterr().out.splitlines() if row.startswith("|")]
    assert len(lines) == 2 + len(memory.WAYS) + 1 + 2 + 4
    assert len({row.count("|") for row in lines}) == 1


def test_without_a_gpu_the_measurement_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["memory.py", "--t4"])
    assert memory.main() == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
