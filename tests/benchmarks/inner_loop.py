"""python tests/benchmarks/inner_loop.py: what a self-edit's trial costs here, four ways.

On a CPU: the bundled model and its own self-edits. With a GPU: Mistral-7B's shape with random NF4
weights (k self-edits of 10 sequences of 64 tokens, 10 epochs, 5 questions each). The ways, each
trained and examined in full:

(a) trainer     transformers.Trainer, one fresh PEFT adapter per self-edit, every sequence padded to
                a fixed length and trained on its pads, as in the paper's public code; batches of
                all sequences instead of one, which is kinder
(b) one by one  `run_trials` with one adapter per pass
(c) together    `run_trials` with all adapters in one pass (the E-step: as many as
                `Config.adapters_per_pass`)
(d) peft mixed  all adapters in one batch by PEFT's `adapter_names`

Prints medians over repeats, interleaved in one run; ratios are between ways of the same run.
"""

import argparse
import contextlib
import io
import platform
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MistralConfig,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging

import sealkit
from sealkit.inner_loop import collate, pack, row_losses, run_trials
from sealkit.models.choice import BUNDLED_MODEL
from sealkit.tasks import knowledge

logging.set_verbosity_error()
warnings.filterwarnings("ignore")


@dataclass
class Workload:
    """A Policy and (passage, self-edit) pairs; `padded` is the fixed length of way (a)."""

    policy: sealkit.Policy
    pairs: list
    padded: int

    def lengths(self):
        """Tokens of each pair's packed row."""
        config = self.policy.config
        texts = [knowledge.lesson(*pair, config).texts for pair in self.pairs]
        return [len(pack(self.policy, own)[0]) for own in texts]


def policy_on(model, tokenizer, config):
    """The Policy on a model, of a recipe."""
    return sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)


def bundled(passages, k):
    """`passages` training passages with k sampled self-edits each, the bundled model's recipe."""
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    policy = policy_on(model, tokenizer, sealkit.config_for(tokenizer))
    texts = sealkit.load_passages("bundled", limit=passages)
    edits = sealkit.generate_self_edits(policy.model, tokenizer, texts, k)
    pairs = [(passage, edit) for passage, own in zip(texts, edits) for edit in own]
    return Workload(policy, pairs, model.config.max_position_embeddings)


def mistral_7b(k, config=None, sequences=10, length=64, device="cuda"):
    """The 7B shape with random weights in NF4, and sequences of `length` made-up tokens."""
    with tempfile.TemporaryDirectory() as folder:  # through the disk (14.5 GB), as real weights go
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(
                config or MistralConfig(), dtype=torch.bfloat16
            )
            model.save_pretrained(folder)
            del model
        AutoTokenizer.from_pretrained(BUNDLED_MODEL).save_pretrained(folder)
        model, tokenizer = sealkit.load_quantized(folder, device)
    random = torch.Generator().manual_seed(0)
    words = [tokenizer.decode([i]).strip() or "a" for i in range(300, 1400)]

    def line():
        drawn = torch.randint(len(words), (length - 4,), generator=random)
        return " ".join(words[i] for i in drawn)

    questions = tuple(sealkit.Question(f"Which {i}?", ("x",)) for i in range(5))
    pairs = []
    for _ in range(k):
        passage = sealkit.Passage("T", line(), questions)
        pairs.append((passage, "\n".join(line() for _ in range(sequences - 1))))
    bundled = sealkit.config_for(tokenizer)
    config = replace(bundled, steps=10, max_tokens=2 * sequences * length)
    return Workload(policy_on(model, tokenizer, config), pairs, 2048)


def trainer(work):
    """(a): one Trainer after the other."""
    model, tokenizer, config = work.policy.model, work.policy.tokenizer, work.policy.config
    options = {"padding": "max_length", "max_length": work.padded, "truncation": True}
    for passage, edit in work.pairs:
        model.add_adapter("fresh", model.peft_config["default"])
        model.set_adapter("fresh")
        texts = [
            f"{text}{tokenizer.eos_token}" for text in sealkit.training_sequences(edit, passage)
        ]
        rows = tokenizer(texts, return_token_type_ids=False, **options)
        rows = [
            {"input_ids": ids, "attention_mask": mask, "labels": ids}
            for ids, mask in zip(rows["input_ids"], rows["attention_mask"])
        ]
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                num_train_epochs=config.steps,
                per_device_train_batch_size=len(rows),
                learning_rate=config.learning_rate,
                lr_scheduler_type="constant",
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=model.device.type == "cpu",
                bf16=model.device.type == "cuda" and model.dtype == torch.bfloat16,
            )
            with contextlib.redirect_stdout(io.StringIO()):
                Trainer(model, arguments, train_dataset=rows).train()
        sealkit.answer_questions(model, tokenizer, passage)
        model.set_adapter("default")
        model.delete_adapter("fresh")


def one_by_one(work):
    """(b)"""
    one = replace(work.policy, config=replace(work.policy.config, adapters_per_pass=1))
    run_trials(one, knowledge, work.pairs)


def together(work):
    """(c)"""
    run_trials(work.policy, knowledge, work.pairs)


def peft_mixed(work):
    """(d): the same packed rows and steps, row i through PEFT adapter i."""
    width = work.policy.config.adapters_per_pass
    for start in range(0, len(work.pairs), width):
        peft_mixed_pass(work.policy, work.pairs[start : start + width])


def peft_mixed_pass(policy, pairs):
    """One pass of (d)."""
    model, tokenizer, config = policy.model, policy.tokenizer, policy.config
    names = [f"row{i}" for i in range(len(pairs))]
    for name in names:
        model.add_adapter(name, model.peft_config["default"])
    model.base_model.set_adapter(names)
    packed = [pack(policy, knowledge.lesson(*pair, config).texts) for pair in pairs]
    inputs, labels = collate(packed, tokenizer.pad_token_id, model.device)
    lora = [p for n, p in model.named_parameters() if "lora_" in n and ".row" in n]
    for p in lora:
        p.requires_grad_()
    optimizer = torch.optim.AdamW(lora, lr=config.learning_rate, weight_decay=0.0)
    for _ in range(config.steps):
        optimizer.zero_grad()
        row_losses(model.eval(), inputs | {"adapter_names": names}, labels).sum().backward()
        optimizer.step()
    asked = [knowledge.questions(passage, config) for passage, _ in pairs]
    rows = [name for name, own in zip(names, asked) for _ in own]
    options = {"return_tensors": "pt", "padding": True, "padding_side": "left"}
    batch = tokenizer(sum(asked, []), return_token_type_ids=False, **options)
    model.generate(
        **batch.to(model.device),
        adapter_names=rows,
        max_new_tokens=config.answer_tokens,
        do_sample=False,
        stop_strings=["\n"],
        tokenizer=tokenizer,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.set_adapter("default")
    for name in names:
        model.delete_adapter(name)


WAYS = {
    "(a) trainer": trainer,
    "(b) one by one": one_by_one,
    "(c) together": together,
    "(d) peft mixed": peft_mixed,
}
HEAD = (
    "| way | s per self-edit | tokens/s | peak memory, GB | share of matrix-product peak "
    "| cost in units of (c) |\n|---|---|---|---|---|---|"
)


def timed(function, work):
    """(seconds, peak GB): on a GPU what torch allocated; on Linux the process' peak; else nan."""
    cuda = work.policy.model.device.type == "cuda"
    status = Path("/proc/self/clear_refs")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    elif status.exists():
        status.write_text("5")
    start = time.perf_counter()
    function(work)
    if cuda:
        torch.cuda.synchronize()
        return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 1e9
    seconds = time.perf_counter() - start
    if not status.exists():
        return seconds, float("nan")
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return seconds, int(peak.split()[1]) / 1e6


def matmul_peak(device, dtype):
    """FLOP/s of a large matrix product here: the best of five."""
    n = 8192 if device.type == "cuda" else 2048
    a, best = torch.randn(n, n, device=device, dtype=dtype), 0.0
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


def report(title, work, ways, repeats):
    """Run each way `repeats` times, interleaved, after one untimed round of the quick ones.

    Prints the table. Returns medians.
    """
    results, model = {name: [] for name in ways}, work.policy.model
    for name in ways:
        if name != "(a) trainer":
            WAYS[name](work)
    for _ in range(repeats):
        for name in ways:
            results[name].append(timed(WAYS[name], work))
    lengths, width = sorted(work.lengths()), work.policy.config.adapters_per_pass
    passes = [lengths[i : i + width] for i in range(0, len(lengths), width)]
    pads = 1 - sum(lengths) / sum(len(own) * own[-1] for own in passes)
    quantized = [
        m for m in model.modules() if hasattr(m, "quant_type") or hasattr(m, "quant_state")
    ]
    linear = sum(m.in_features * m.out_features for m in quantized)
    peak = matmul_peak(model.device, model.dtype)
    seconds = {name: statistics.median(s for s, _ in rows) for name, rows in results.items()}
    tokens = work.policy.config.steps * sum(lengths)
    print(
        f"\n**{title}**, {len(lengths)} self-edits, {tokens / len(lengths):.0f} tokens trained on "
        f"in each, pads {pads:.0%} of the positions in (c), medians of {repeats}\n\n{HEAD}"
    )
    for name in ways:
        rate, memory = tokens / seconds[name], max(gb for _, gb in results[name])
        print(
            f"| {name} | {seconds[name] / len(lengths):.3f} | {rate:,.0f} | {memory:.2f} | "
            f"{4 * linear * rate / peak:.1%} | {seconds[name] / seconds['(c) together']:.2f} |"
        )
    return seconds


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--without-trainer", action="store_true", help="leave out way (a), the slow"
    )
    args = parser.parse_args()
    first = [name for name in WAYS if not (args.without_trainer and name == "(a) trainer")]
    print(sealkit.environment(), f"\n{platform.processor() or platform.machine()}")
    one, ten = bundled(1, 5), bundled(10, 5)
    report("Bundled model on a CPU, one passage, k = 5", one, first, args.repeats)
    e_step = "Bundled model on a CPU, an E-step of 10 passages, k = 5"
    report(e_step, ten, list(WAYS)[1:], args.repeats)
    if torch.cuda.is_available():
        title, pair = "Mistral-7B's shape on a GPU", ["(b) one by one", "(c) together"]
        five = report(f"{title}, k = 5", mistral_7b(5), first, args.repeats)
        ten = report(f"{title}, k = 10", mistral_7b(10), pair, args.repeats)
        ratio = ten["(c) together"] / five["(c) together"]
        print(f"\nk = 10 costs {ratio:.2f} times k = 5, all together.")


if __name__ == "__main__":
    main()
