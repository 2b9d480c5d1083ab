"""Self-edits: prompts, seeded sampling, and the text turned into training sequences (paper, section 3 and appendix B)."""

import hashlib
import re

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from .loading import newline_id

# The bundled model has read all of these in pretraining; None leaves the choice of style to the policy.
PROMPTS = {
    None: "Notes:",
    "implications": "Implications:",
    "questions": "Questions:",
    "rewrite": "Rewrite:",
    "gist": "Gist:",
}
STYLES = tuple(style for style in PROMPTS if style)


def self_edit_prompt(passage, style=None):
    """The prompt that asks for a self-edit of `passage`, in one of STYLES or (None) in whatever style the policy likes."""
    if style not in PROMPTS:
        raise ValueError(f"No self-edit style {style!r}: use one of {', '.join(STYLES)}, or None.")
    return f"{passage.title}\n{passage.text}\n\n{PROMPTS[style]}"


def seed_of(*key):
    """A 63-bit seed from a key such as (seed, iteration, passage, candidate): the same on every machine, never the clock."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


class _SeededSampling(LogitsProcessor):
    """Adds Gumbel noise from one generator a row, so that greedy search draws a sample.

    argmax(logits + Gumbel) is a draw from softmax(logits); with a generator for each row, what a row draws
    does not depend on the rows beside it.
    """

    def __init__(self, seeds):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids, scores):
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])
        return scores - torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7))).to(scores)


@torch.no_grad()
def complete(model, tokenizer, prompts, max_new_tokens, seeds=None, temperature=1.0, top_p=1.0, stop_at_newline=False):
    """Continue every prompt: greedily, or as a sample if there is a seed for each.

    Returns list[str], without the prompt, stripped. One left-padded batch, shape (len(prompts), longest prompt).
    """
    model.eval()
    stops = [tokenizer.eos_token_id] + ([newline_id(tokenizer)] if stop_at_newline else [])
    processors = LogitsProcessorList()
    if seeds is not None:
        warpers = [TemperatureLogitsWarper(float(temperature))] + ([TopPLogitsWarper(top_p)] if top_p < 1 else [])
        processors.extend([*warpers, _SeededSampling(seeds)])
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False).to(model.device)
    output = model.generate(
        **batch, max_new_tokens=max_new_tokens, do_sample=False, logits_processor=processors,
        eos_token_id=stops, pad_token_id=tokenizer.pad_token_id,
    )
    new = output[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def generate_self_edits(model, tokenizer, passage, k=5, seed=0, style=None, temperature=1.0, top_p=0.95, max_new_tokens=160):
    """Sample k self-edits SE ~ LM_θ(· | C) for one passage (Passage), or k for each of a list of passages.

    seed: an int, or a tuple such as (seed, iteration); candidate j of the passage draws from (seed, passage, j) alone.
    temperature, top_p: the paper's 1.0 and 0.95. Returns list[str] of length k, or a list of such lists.
    Raises ValueError for k < 1 or an unknown style.
    """
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one self-edit per passage.")
    passages = passage if isinstance(passage, list) else [passage]
    prompts = [self_edit_prompt(p, style) for p in passages for _ in range(k)]
    seeds = [seed_of(seed, p.title, p.text, style, j) for p in passages for j in range(k)]
    texts = complete(model, tokenizer, prompts, max_new_tokens, seeds, temperature, top_p)
    edits = [texts[i : i + k] for i in range(0, len(texts), k)]
    return edits if isinstance(passage, list) else edits[0]


def training_sequences(edit, passage):
    """The texts that the inner loop trains on: the passage itself and each line of the self-edit.

    Numbering, bullets and bold marks are taken off; a line of preamble that ends in a colon, and repeated lines, are left out;
    a "Question:" line is joined with the "Answer:" line after it. Never empty: with an empty self-edit it is the
    passage alone. Returns list[str].
    """
    text = edit.replace("\r", "\n").replace("**", "")
    text = re.sub(r"(?im)^([\W\d]*(?:question|q)\b.*)\n+[\W\d]*(?=(?:answer|a)\s*:)", r"\1 ", text)
    lines = [re.sub(r"^\s*(?:\(?\d{1,3}[.):]\s+|[-*•–]\s+)+", "", line).strip() for line in text.split("\n")]
    lines = [line for line in lines if re.search(r"\w", line) and not line.endswith(":")]
    return [f"{passage.title}\n{passage.text}".strip(), *dict.fromkeys(lines)]
