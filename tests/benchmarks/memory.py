"""python tests/benchmarks/memory.py: the GPU memory of a pass on Mistral-7B's shape.

And what each remedy saves. Computed, without a GPU: sealkit's own `fork` and `sft`, with PEFT's and
bitsandbytes' own code below them, run for two steps on tensors that have a size and no values
(torch's device "meta"); a `Ledger` adds up what is alive. With --t4, measured on a GPU: a pass and
a short run with no more memory than a T4 has, in float16, on random weights. With --rewards,
measured on a CPU: what 8-bit Adam costs in reward on the bundled model.
"""

import argparse
import sys
import time
import weakref
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from unittest import mock

import bitsandbytes as bnb
import torch
from bitsandbytes.backends.default.ops import _gemm_4bit_default_impl as dequantize_and_multiply
from inner_loop import mistral_7b
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import flop_registry
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, MistralConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

import sealkit
from sealkit.inner_loop import Lesson, row_losses, run_trials, sft
from sealkit.lora import fork, side_by_side
from sealkit.tasks import knowledge

GIB = 2**30
T4_GIB = 14.7  # what a T4 leaves to programs
BLOCK = 512  # bytes: torch's CUDA allocator rounds every tensor up to a multiple of it
KINDS = ("weights", "policy", "adapters", "gradients", "Adam", "activations", "temporaries")
REAL = knowledge.GENERAL_CONFIG  # `config_for` a model of the hub


class Ledger(TorchDispatchMode):
    """Within this context: the bytes of all tensors alive on `device` (a type), and the most ever.

    now, peak: bytes, each storage rounded up to BLOCK and counted once, however many views it has.
    at_peak: bytes by kind. flop: of the matrix products and attentions, as torch counts them.
    A tensor is of the kind that `label` gave it; else "temporaries" if it was made in a backward
    pass or in an optimizer's step, and "activations" if in a forward pass. Does not see what
    kernels take for themselves, except for the attention's workspace.
    """

    def __init__(self, device="meta"):
        super().__init__()
        self.device, self.sizes, self.kinds, self.held = device, {}, {}, Counter()
        self.now, self.peak, self.flop, self.at_peak, self.phase = 0, 0, 0, Counter(), "activations"

    def label(self, tensors, kind):
        """Count these tensors as `kind`, from now on."""
        for tensor in tensors:
            self._enter(tensor, kind)
            key = id(tensor.untyped_storage())
            if key in self.kinds:
                self.held[self.kinds[key]] -= self.sizes[key]
                self.held[kind] += self.sizes[key]
                self.kinds[key] = kind

    def _enter(self, tensor, kind):
        storage = tensor.untyped_storage()
        key = id(storage)
        if tensor.device.type != self.device or key in self.sizes:
            return
        self.sizes[key], self.kinds[key] = -(-storage.nbytes() // BLOCK) * BLOCK, kind
        self.now += self.sizes[key]
        self.held[kind] += self.sizes[key]
        weakref.finalize(storage, self._leave, key)
        if self.now >= self.peak:
            self.peak, self.at_peak = self.now, self.held.copy()

    def _leave(self, key):
        size = self.sizes.pop(key)
        self.now -= size
        self.held[self.kinds.pop(key)] -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        meta = self.device == "meta"
        if (
            meta and func is torch.ops.bitsandbytes.gemm_4bit.default
        ):  # what bitsandbytes does on a GPU for more than 1,536 rows
            with self:
                return dequantize_and_multiply(*args, **kwargs or {})
        if meta and func is torch.ops.aten._local_scalar_dense.default:
            if args[0].device.type == "meta":  # there are no values: nothing overflows
                return 0.0
        if meta and func is torch.ops.aten._to_copy.default:
            if args[0].device.type == "meta" and kwargs.get("device") == torch.device("cpu"):
                return torch.zeros_like(args[0], device="cpu")  # the losses, to be told
        workspace = None
        if meta and func is torch.ops.aten._scaled_dot_product_efficient_attention_backward.default:
            workspace = torch.empty((3, *args[1].shape), dtype=torch.float32, device="meta")
            self._enter(workspace, "temporaries")
        result = func(*args, **kwargs or {})
        if func is torch.ops.aten.linear.default:
            self.flop += 2 * result.numel() * args[0].shape[-1]
        elif func._overloadpacket in flop_registry:
            self.flop += flop_registry[func._overloadpacket](*args, **kwargs or {}, out_val=result)
        kind = self.phase if torch._C._current_autograd_node() is None else "temporaries"
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._enter(leaf, kind)
        return result


def efficient_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None
):
    """`scaled_dot_product_attention` as a GPU computes it where there is a mask: memory-efficient.

    One below capability 8.0 also without a mask. The boolean mask becomes one of `query`'s dtype,
    shared by all heads.
    """
    bias = None
    if attn_mask is not None:
        bias = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, -torch.inf)
        bias = bias.expand(len(query), query.shape[1], -1, -1)
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, query.requires_grad, dropout_p, is_causal, scale=scale
    )[0]


def on_meta(config, dtype=torch.float16):
    """The Policy on a model of this shape as `load_quantized` makes it, without values."""
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model = replace_with_bnb_linear(model, ["lm_head"], quantization)
    with mock.patch.dict(
        "bitsandbytes.functional.name2qmap"
    ):  # where bitsandbytes keeps a table on the first device that it sees
        for module in model.modules():
            if isinstance(module, bnb.nn.Linear4bit):
                module.weight.data = module.weight.data.to(dtype)
                module.weight._quantize("meta")
    model.is_loaded_in_4bit = True
    with torch.device("meta"):
        model = sealkit.attach_policy(model.requires_grad_(False).eval(), REAL)
    return sealkit.Policy(model, SimpleNamespace(pad_token_id=0), REAL)


def tensors_of(model):
    """(tensors of the quantized model with Linear4bit's scales, tensors of the policy's LoRA)."""
    base = [p for name, p in model.named_parameters() if "lora_" not in name] + list(
        model.buffers()
    )
    for state in [p.quant_state for p in base if getattr(p, "quant_state", None)]:
        base += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    return base, [p for name, p in model.named_parameters() if "lora_" in name]


@contextmanager
def as_on_a_gpu():
    """Within this context tensors on "meta" get what CUDA tensors would.

    Optimizers with one kernel for many tensors, and efficient attention.
    """
    devices = ["cuda", "meta"]
    with (
        mock.patch("torch.optim.optimizer._get_foreach_kernels_supported_devices", lambda: devices),
        mock.patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: devices),
        mock.patch("torch.nn.functional.scaled_dot_product_attention", efficient_attention),
    ):
        yield


def train(policy, packed, ledger, optimizer=None):
    """`sft` on packed rows under a Ledger, `optimizer` in place of torch's AdamW: the adapters.

    The ledger's kinds are labelled here: weights and policy at the start, adapters, their
    gradients, and Adam's state.
    """

    def labels_gradient(tensor):
        ledger.label([tensor.grad], "gradients")

    def before(*_):
        ledger.phase = "temporaries"

    def after(optimizer, *_):
        ledger.phase = "activations"
        ledger.label(
            [
                t
                for state in optimizer.state.values()
                for t in state.values()
                if isinstance(t, torch.Tensor)
            ],
            "Adam",
        )

    base, lora = tensors_of(policy.model)
    hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    try:
        lessons = [Lesson([], policy.config.steps, policy.config.learning_rate)] * len(packed)
        rows = mock.patch("sealkit.inner_loop.pack", side_effect=packed)
        with rows, mock.patch("torch.optim.AdamW", optimizer or torch.optim.AdamW), ledger:
            ledger.label(base, "weights")
            ledger.label(lora, "policy")
            adapters = fork(policy.model, len(packed))
            tensors = [tensor for pair in adapters.values() for tensor in pair]
            ledger.label(tensors, "adapters")
            for tensor in tensors:
                tensor.register_post_accumulate_grad_hook(labels_gradient)
            sft(policy, adapters, lessons)
    finally:
        for hook in hooks:
            hook.remove()
    return adapters


def rows_of(k, tokens):
    """k packed rows of `tokens` tokens each, of five sequences."""
    return [([5] * tokens, [i % -(-tokens // 5) for i in range(tokens)]) for _ in range(k)]


def computed(policy, k=5, tokens=512, optimizer=None, **changes):
    """Ledger of two steps of a pass of k adapters with rows of `tokens` tokens.

    policy: from `on_meta`. changes: of its recipe.
    """
    ledger, config = Ledger(), replace(policy.config, steps=2, **changes)
    with as_on_a_gpu():
        train(replace(policy, config=config), rows_of(k, tokens), ledger, optimizer)
    return ledger


def exam(policy, k=5, questions=5, tokens=140):
    """Ledger of the first forward pass of an exam: k adapters with their gradients.

    Each has `questions` prompts of `tokens` tokens.
    """
    ledger = Ledger()
    base, lora = tensors_of(policy.model)
    with as_on_a_gpu(), torch.no_grad(), ledger:
        ledger.label(base, "weights")
        ledger.label(lora, "policy")
        adapters = fork(policy.model, k)
        tensors = [tensor for pair in adapters.values() for tensor in pair]
        ledger.label(tensors, "adapters")
        for tensor in tensors:
            tensor.grad = torch.empty_like(tensor)
        ledger.label([tensor.grad for tensor in tensors], "gradients")
        ids = torch.zeros((k * questions, tokens), dtype=torch.long, device=policy.model.device)
        with side_by_side(policy.model, adapters):
            policy.model(
                input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, logits_to_keep=1
            )
    return ledger


def row_by_row(model, inputs, labels):
    """`row_losses` with head and loss of one row at a time, computed again on the way back."""
    base = model.get_base_model()
    hidden = base.model(**inputs, use_cache=False).last_hidden_state

    def loss(states, wanted):
        return row_losses(
            lambda **_: argparse.Namespace(logits=base.lm_head(states[None])), {}, wanted[None]
        )[0]

    return torch.stack(
        [
            checkpoint(loss, states, wanted, use_reentrant=False)
            for states, wanted in zip(hidden, labels)
        ]
    )


@contextmanager
def paged():
    """Within this context bitsandbytes' paged tensors are on the CPU, which a Ledger leaves out."""

    def on_cpu(*shape, dtype=torch.float32, device=None):
        tensor = torch.zeros(shape, dtype=dtype)
        tensor.is_paged = True
        return tensor

    def nothing(*args, **kwargs):
        pass

    with (
        mock.patch("bitsandbytes.functional.get_paged", on_cpu),
        mock.patch("bitsandbytes.functional.fill", nothing),
        mock.patch("bitsandbytes.functional.prefetch_tensor", nothing),
    ):
        yield


AS_SEALKIT_DOES = "and each layer computed again (`Config.checkpointing`): as sealkit does"
IN_PARTS = partial(mock.patch, "sealkit.inner_loop.row_losses", row_by_row)
WAYS = {  # name: (checkpointing, context, optimizer)
    "torch's AdamW, every activation kept": (False, nullcontext, None),
    AS_SEALKIT_DOES: (True, nullcontext, None),
    "and head and loss one row at a time, computed again": (True, IN_PARTS, None),
    "as sealkit does, but bitsandbytes' AdamW8bit": (True, nullcontext, bnb.optim.AdamW8bit),
    "as sealkit does, but PagedAdamW8bit, its state paged out": (
        True,
        paged,
        bnb.optim.PagedAdamW8bit,
    ),
}


EXAM = "for comparison, the exam of such a pass: the first forward pass of 25 prompts of 140 tokens"


def line(name, ledger, flop):
    """A row of a table: GiB by kind, and FLOP relative to `flop`, where that is not None."""
    gib = [f"{ledger.at_peak[kind] / GIB:.2f}" if ledger.at_peak[kind] else "–" for kind in KINDS]
    times = f"{ledger.flop / flop:.2f}" if flop else "–"
    return f"| {name} | **{ledger.peak / GIB:.2f}** | {' | '.join(gib)} | {times} |"


def tables(config=None):
    """Print the computed tables for a shape (Mistral-7B's)."""
    policy = on_meta(config or MistralConfig())
    head = f"| GiB at the peak | {' | '.join(KINDS)} | FLOP |\n|{'---|' * (len(KINDS) + 3)}"
    ledgers = {}
    for name, (checkpointing, context, optimizer) in WAYS.items():
        with context():
            ledgers[name] = computed(policy, optimizer=optimizer, checkpointing=checkpointing)
    plain = next(iter(ledgers.values())).flop
    print(f"5 adapters, rows of 512 tokens, float16 (computed)\n\n| training {head}")
    print("\n".join(line(name, ledger, plain) for name, ledger in ledgers.items()))
    print(line(EXAM, exam(policy), None))
    print(f"\nAs sealkit does, by width (computed; FLOP for each adapter)\n\n| adapters {head}")
    for k in (1, 5, 10, 25):
        print(line(k, computed(policy, k), k * plain / 5))


def rewards(count):
    """Print what 8-bit Adam costs in reward: the bundled model, `count` passages, 5 trials each."""
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    config, first = sealkit.config_for(tokenizer), None
    passages = sealkit.load_passages("bundled", "validation", count)
    policy = sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)
    edits = sealkit.generate_self_edits(policy.model, tokenizer, passages, 4)
    pairs = [(passage, edit) for passage, own in zip(passages, edits) for edit in ("", *own)]
    print(
        "| optimizer | mean reward | same reward as with AdamW | mean loss at the last step | s |"
    )
    print(f"|{'---|' * 5}")
    for name, optimizer in {"AdamW": torch.optim.AdamW, "AdamW8bit": bnb.optim.AdamW8bit}.items():
        start = time.perf_counter()
        with mock.patch("torch.optim.AdamW", optimizer):
            trials = run_trials(policy, knowledge, pairs)
        seconds, got = time.perf_counter() - start, [trial.reward for trial in trials]
        first = first or got
        same = f"{sum(a == b for a, b in zip(got, first)) / len(got):.1%} of {len(got)} trials"
        mean, loss = sum(got) / len(got), sum(trial.losses[-1] for trial in trials) / len(got)
        print(f"| {name} | {mean:.1%} | {same} | {loss:.4f} | {seconds:.1f} |")


@contextmanager
def capped(gib):
    """Within this context this process may take `gib` GiB of the GPU, beside what CUDA takes."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        min(1.0, gib * GIB / torch.cuda.get_device_properties(0).total_memory)
    )
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def full_rows(k, dtype=torch.float16, device="cuda", config=None, **changes):
    """(Policy, pairs): k rows of exactly 512 tokens on Mistral-7B's shape, computing in `dtype`.

    changes: of a real model's recipe.
    """
    choose, tokens = sealkit.loading.choose, 512

    def in_dtype(*args):
        return replace(choose(*args), dtype=dtype, products=dtype)

    with mock.patch("sealkit.loading.choose", in_dtype):
        work = mistral_7b(k, config, sequences=10, length=tokens // 8, device=device)
    prompts = work.policy.config.prompts  # short ones, and a vocabulary that has their words
    config = replace(REAL, **{"prompts": prompts, "max_tokens": tokens} | changes)
    work.policy.model.seal_config = config
    return replace(work.policy, config=config), work.pairs


def peak_of(function, device):
    """(what `function` returns, seconds, bytes that torch had allocated at most; nan on a CPU)."""
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = function()
    if cuda:
        torch.cuda.synchronize()
    most = torch.cuda.max_memory_allocated() if cuda else float("nan")
    return result, time.perf_counter() - start, most


def first_one(rewards, alone):
    """A selection rule by which there is always something to learn."""
    return [0]


def t4(device="cuda", config=None, passages=2, steps=REAL.steps):
    """Print peak and minutes of a pass and of `run_seal`, on a T4's memory and in its dtype."""
    policy, pairs = full_rows(5, device=device, config=config, steps=steps, keep=first_one)
    with capped(T4_GIB) if device == "cuda" else nullcontext():
        trials, seconds, peak = peak_of(partial(run_trials, policy, knowledge, pairs), device)
        pace = f"{len(trials)} adapters of {trials[0].tokens} tokens, {steps} steps"
        took = f"{seconds / 60:.1f} min, peak {peak / GIB:.2f} GiB"
        print(f"A pass of {pace}, exam: {took}")
        texts = [passage for passage, _ in pairs[:passages]]
        run = partial(sealkit.run_seal, policy.model, policy.tokenizer, texts, 2, 5)
        history, seconds, peak = peak_of(run, device)
        groups = [group for iteration in history.iterations for group in iteration.trials]
        pace = (
            f"2 iterations of {len(texts)} passages ({sum(len(own) + 1 for own in groups)} trials)"
        )
        print(f"run_seal, {pace}: {seconds / 60:.1f} min, peak {peak / GIB:.2f} GiB")


def main():
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--t4", action="store_true", help="measure on this GPU with a T4's memory instead"
    )
    parser.add_argument(
        "--rewards", type=int, metavar="N", help="measure 8-bit Adam's reward on N passages instead"
    )
    args = parser.parse_args()
    if args.rewards:
        return rewards(args.rewards)
    if not args.t4:
        return tables()
    if not torch.cuda.is_available():
        said = "--t4 measures on a CUDA GPU, and there is none: without it the memory is computed."
        print(said, file=sys.stderr)
        return 2
    print(sealkit.environment("bundled"))
    t4()


if __name__ == "__main__":
    sys.exit(main())
