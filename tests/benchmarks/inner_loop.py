"""python tests/benchmarks/inner_loop.py: what a self-edit's trial costs, four ways, on this machine.

On a CPU: the bundled model and its own self-edits. With a GPU: Mistral-7B's shape with random NF4 weights (k self-edits
of 10 sequences of 64 tokens, 10 epochs, 5 questions each). The ways, each trained and examined in full:

(a) trainer     transformers.Trainer, one fresh PEFT adapter per self-edit, every sequence padded to a fixed length and
                trained on its pads, as in the paper's public code; batches of all sequences instead of one, which is kinder
(b) one by one  `run_trials` with one adapter per pass
(c) together    `run_trials` with all adapters in one pass (the E-step: as many as `Settings.adapters_per_pass`)
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
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, Trainer, TrainingArguments
from transformers.utils import logging

import sealkit
from sealkit.exam import MAX_ANSWER_TOKENS, exam_prompt
from sealkit.inner_loop import collate, pack, row_losses, run_trials
from sealkit.loading import BUNDLED_MODEL

logging.set_verbosity_error()
warnings.filterwarnings("ignore")


class Workload:
    """A policy and (passage, self-edit) pairs; `padded` is the fixed length of way (a)."""

    def __init__(self, policy, tokenizer, pairs, settings, padded):
        self.policy, self.tokenizer, self.pairs, self.settings, self.padded = policy, tokenizer, pairs, settings, padded
        sequences = [sealkit.training_sequences(edit, passage) for passage, edit in pairs]
        self.tokens = settings.steps * sum(len(pack(tokenizer, s, settings.max_tokens)[0]) for s in sequences)


def bundled(passages, k):
    """`passages` training passages with k sampled self-edits each, sealkit's own settings."""
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    policy = sealkit.attach_policy(model)
    texts = sealkit.load_passages("bundled", limit=passages)
    edits = sealkit.generate_self_edits(policy, tokenizer, texts, k)
    pairs = [(passage, edit) for passage, own in zip(texts, edits) for edit in own]
    return Workload(policy, tokenizer, pairs, sealkit.Settings(), model.config.max_position_embeddings)


def mistral_7b(k, config=None, sequences=10, length=64, device="cuda"):
    """The 7B shape with random weights in NF4; made-up sequences of `length` tokens from the bundled vocabulary."""
    with tempfile.TemporaryDirectory() as folder:  # through the disk (14.5 GB): the way that real weights take
        with torch.device(device):
            AutoModelForCausalLM.from_config(config or MistralConfig(), dtype=torch.bfloat16).save_pretrained(folder)
        AutoTokenizer.from_pretrained(BUNDLED_MODEL).save_pretrained(folder)
        model, tokenizer = sealkit.load_quantized(folder, device)
    random = torch.Generator().manual_seed(0)
    words = [tokenizer.decode([i]).strip() or "a" for i in range(300, 1400)]

    def line():
        return " ".join(words[i] for i in torch.randint(len(words), (length - 4,), generator=random))

    questions = tuple(sealkit.Question(f"Which {i}?", ("x",)) for i in range(5))
    pairs = [(sealkit.Passage("T", line(), questions), "\n".join(line() for _ in range(sequences - 1))) for _ in range(k)]
    settings = sealkit.Settings(steps=10, max_tokens=2 * sequences * length)
    return Workload(sealkit.attach_policy(model, settings), tokenizer, pairs, settings, 2048)


def trainer(work):
    """(a): one Trainer after the other."""
    policy, tokenizer, settings = work.policy, work.tokenizer, work.settings
    for passage, edit in work.pairs:
        policy.add_adapter("fresh", policy.peft_config["default"])
        policy.set_adapter("fresh")
        texts = sealkit.training_sequences(edit, passage)
        rows = tokenizer([text + tokenizer.eos_token for text in texts], padding="max_length", max_length=work.padded, truncation=True,
                         return_token_type_ids=False)
        rows = [{"input_ids": ids, "attention_mask": mask, "labels": ids} for ids, mask in zip(rows["input_ids"], rows["attention_mask"])]
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, num_train_epochs=settings.steps, per_device_train_batch_size=len(rows), learning_rate=settings.learning_rate,
                lr_scheduler_type="constant", report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
                use_cpu=policy.device.type == "cpu", bf16=policy.device.type == "cuda" and policy.dtype == torch.bfloat16,
            )
            with contextlib.redirect_stdout(io.StringIO()):
                Trainer(policy, arguments, train_dataset=rows).train()
        sealkit.answer_questions(policy, tokenizer, passage)
        policy.set_adapter("default")
        policy.delete_adapter("fresh")


def one_by_one(work):
    """(b)"""
    run_trials(work.policy, work.tokenizer, work.pairs, replace(work.settings, adapters_per_pass=1))


def together(work):
    """(c)"""
    run_trials(work.policy, work.tokenizer, work.pairs, work.settings)


def peft_mixed(work):
    """(d): the same packed rows and steps, row i through PEFT adapter i."""
    policy, tokenizer, settings = work.policy, work.tokenizer, work.settings
    for start in range(0, len(work.pairs), settings.adapters_per_pass):
        pairs = work.pairs[start : start + settings.adapters_per_pass]
        names = [f"row{i}" for i in range(len(pairs))]
        for name in names:
            policy.add_adapter(name, policy.peft_config["default"])
        policy.base_model.set_adapter(names)
        packed = [pack(tokenizer, sealkit.training_sequences(edit, passage), settings.max_tokens) for passage, edit in pairs]
        inputs, labels = collate(packed, tokenizer.pad_token_id, policy.device)
        lora = [p for n, p in policy.named_parameters() if "lora_" in n and ".row" in n]
        for p in lora:
            p.requires_grad_()
        optimizer = torch.optim.AdamW(lora, lr=settings.learning_rate, weight_decay=0.0)
        for _ in range(settings.steps):
            optimizer.zero_grad()
            row_losses(policy.eval(), inputs | {"adapter_names": names}, labels).sum().backward()
            optimizer.step()
        asked = [exam_prompt(passage, question) for passage, _ in pairs for question in passage.questions]
        rows = [name for name, (passage, _) in zip(names, pairs) for _ in passage.questions]
        batch = tokenizer(asked, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False).to(policy.device)
        policy.generate(**batch, adapter_names=rows, max_new_tokens=MAX_ANSWER_TOKENS, do_sample=False,
                        eos_token_id=[tokenizer.eos_token_id, tokenizer("a\nb", add_special_tokens=False)["input_ids"][-2]], pad_token_id=tokenizer.pad_token_id)
        policy.set_adapter("default")
        for name in names:
            policy.delete_adapter(name)


WAYS = {"(a) trainer": trainer, "(b) one by one": one_by_one, "(c) together": together, "(d) peft mixed": peft_mixed}


def timed(function, work):
    """(seconds, peak memory in GB): on a GPU what torch allocated; on Linux the process' resident peak; else nan."""
    cuda = work.policy.device.type == "cuda"
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
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
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
    """Run each way `repeats` times, interleaved, after one untimed round of the quick ones; print the table. Returns medians."""
    results = {name: [] for name in ways}
    for name in ways:
        if name != "(a) trainer":
            WAYS[name](work)
    for _ in range(repeats):
        for name in ways:
            results[name].append(timed(WAYS[name], work))
    passes = []
    run_trials(work.policy, work.tokenizer, work.pairs, replace(work.settings, steps=1), report=passes.append)
    pads = 1 - sum(one.tokens for one in passes) / sum(one.positions for one in passes)
    linear = sum(m.in_features * m.out_features for m in work.policy.modules() if hasattr(m, "quant_type") or hasattr(m, "quant_state"))
    peak = matmul_peak(work.policy.device, work.policy.dtype)
    seconds = {name: statistics.median(s for s, _ in rows) for name, rows in results.items()}
    print(f"\n**{title}**, {len(work.pairs)} self-edits, {work.tokens / len(work.pairs):.0f} tokens trained on in each, pads {pads:.0%} of the positions in (c), medians of {repeats}\n")
    print("| way | s per self-edit | tokens/s | peak memory, GB | share of matrix-product peak | cost in units of (c) |\n|---|---|---|---|---|---|")
    for name in ways:
        rate = work.tokens / seconds[name]
        print(f"| {name} | {seconds[name] / len(work.pairs):.3f} | {rate:,.0f} | {max(m for _, m in results[name]):.2f} | "
              f"{4 * linear * rate / peak:.1%} | {seconds[name] / seconds['(c) together']:.2f} |")
    return seconds


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--without-trainer", action="store_true", help="leave out way (a), which takes most of the time")
    args = parser.parse_args()
    first = [name for name in WAYS if not (args.without_trainer and name == "(a) trainer")]
    print(sealkit.environment(), f"\n{platform.processor() or platform.machine()}")
    report("Bundled model on a CPU, one passage, k = 5", bundled(1, 5), first, args.repeats)
    report("Bundled model on a CPU, an E-step of 10 passages, k = 5", bundled(10, 5), list(WAYS)[1:], args.repeats)
    if torch.cuda.is_available():
        five = report("Mistral-7B's shape on a GPU, k = 5", mistral_7b(5), first, args.repeats)
        ten = report("Mistral-7B's shape on a GPU, k = 10", mistral_7b(10), ["(b) one by one", "(c) together"], args.repeats)
        print(f"\nk = 10 costs {ten['(c) together'] / five['(c) together']:.2f} times k = 5, all together.")


if __name__ == "__main__":
    main()
