"""Self-edits: prompts, seeded sampling, and the text turned into training sequences (paper, section 3 and appendix B)."""

import hashlib
import re

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList, TemperatureLogitsWarper, TopPLogitsWarper

from .prompts import BUNDLED, prompts_for

PROMPTS, STYLES = BUNDLED.cues, BUNDLED.styles  # the bundled world's; other models have those of `prompts.GENERAL`
CACHE_BYTES = 2 * 2**30  # of keys and values that one batch of texts may take
CHARACTERS = 100_000     # of a self-edit that are read; `Settings.max_tokens` takes far fewer


def self_edit_prompt(passage, style=None, prompts=BUNDLED):
    """The prompt that asks for a self-edit of `passage`, in one of the styles of `prompts` or (None) in its default.

    In the bundled world the default leaves the style to the policy; see `prompts_for` for the prompts of a model.
    """
    if style not in prompts.cues:
        raise ValueError(f"No self-edit style {style!r}: use one of {', '.join(prompts.styles)}, or None.")
    return prompts.examples[style] + prompts.passage.format(title=passage.title, text=passage.text) + prompts.cues[style]


def seed_of(*key):
    """A 63-bit seed from a key such as (seed, iteration, passage, candidate): the same on every machine, never the clock."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def encode(tokenizer, texts, **options):
    """`tokenizer(texts)` for texts that nobody has checked: the name of a special token is plain text, and half of a surrogate pair is U+FFFD."""
    def whole(text):
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    texts = whole(texts) if isinstance(texts, str) else list(map(whole, texts))
    return tokenizer(texts, split_special_tokens=True, **options)


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


class _StopAt(StoppingCriteria):
    """Ends a row when the text after the first `start` tokens holds one of `strings`.

    By text and not by token id: in many vocabularies a newline is also part of other tokens, such as ".\\n".
    """

    def __init__(self, tokenizer, strings, start):
        self.tokenizer, self.strings, self.start = tokenizer, strings, start

    def __call__(self, input_ids, scores, **kwargs):
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        return torch.tensor([any(string in text for string in self.strings) for text in texts], device=input_ids.device)


@torch.no_grad()
def complete(model, tokenizer, prompts, max_new_tokens, seeds=None, temperature=1.0, top_p=1.0, stops=()):
    """Continue every prompt: greedily, or as a sample if there is a seed for each.

    stops: strings at the first of which a text ends. Returns list[str], without the prompt, stripped.
    One left-padded batch, shape (len(prompts), longest prompt).
    """
    model.eval()
    processors = LogitsProcessorList()
    if seeds is not None:
        warpers = [TemperatureLogitsWarper(float(temperature))] + ([TopPLogitsWarper(top_p)] if top_p < 1 else [])
        processors.extend([*warpers, _SeededSampling(seeds)])
    batch = encode(tokenizer, prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False).to(model.device)
    start = batch["input_ids"].shape[1]
    output = model.generate(
        **batch, max_new_tokens=max_new_tokens, do_sample=False, logits_processor=processors,
        stopping_criteria=StoppingCriteriaList([_StopAt(tokenizer, stops, start)] if stops else []),
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )
    texts = tokenizer.batch_decode(output[:, start:], skip_special_tokens=True)
    return [text[: min([len(text), *(text.find(stop) for stop in stops if stop in text)])].strip() for text in texts]


def complete_in_parts(model, tokenizer, prompts, max_new_tokens, seeds=None, known=(), report=None, **sampling):
    """`complete` for any number of prompts: as many at a time as their keys and values fit into CACHE_BYTES.

    known: the first texts, of an earlier call that did not end; report: a function that is called with the next ones,
    list[str], after each part.
    """
    config, texts = model.config, list(known)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    of_a_token = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    longest = max(map(len, encode(tokenizer, prompts)["input_ids"]), default=0) + max_new_tokens
    rows = max(1, CACHE_BYTES // (of_a_token * longest))
    while len(texts) < len(prompts):
        i = len(texts) - len(texts) % rows
        part = slice(i, i + rows)
        new = complete(model, tokenizer, prompts[part], max_new_tokens, seeds and seeds[part], **sampling)[len(texts) - i :]
        texts += new
        if report:
            report(new)
    return texts


def generate_self_edits(model, tokenizer, passage, k=5, seed=0, style=None, temperature=1.0, top_p=0.95, max_new_tokens=None,
                        known=(), report=None):
    """Sample k self-edits SE ~ LM_θ(· | C) for one passage (Passage), or k for each of a list of passages.

    seed: an int, or a tuple such as (seed, iteration); candidate j of the passage draws from (seed, passage, j) alone.
    temperature, top_p: the paper's 1.0 and 0.95. max_new_tokens: None for what the model's prompts name (`prompts_for`).
    known, report: to resume, see `complete_in_parts`; the texts are ordered by passage, then candidate.
    Returns list[str] of length k, or a list of such lists.
    Raises ValueError for k < 1 or an unknown style.
    """
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one self-edit per passage.")
    passages = passage if isinstance(passage, list) else [passage]
    asked = prompts_for(tokenizer)
    prompts = [self_edit_prompt(p, style, asked) for p in passages for _ in range(k)]
    seeds = [self_edit_seed(seed, p, j, style) for p in passages for j in range(k)]
    texts = complete_in_parts(
        model, tokenizer, prompts, max_new_tokens or asked.max_new_tokens, seeds, known, report,
        temperature=temperature, top_p=top_p, stops=asked.stops,
    )
    edits = [texts[i : i + k] for i in range(0, len(texts), k)]
    return edits if isinstance(passage, list) else edits[0]


def self_edit_seed(seed, passage, candidate, style=None):
    """The seed that one self-edit is sampled with."""
    return seed_of(seed, passage.title, passage.text, style, candidate)


_LABEL = re.compile(  # 1.  2)  (3)  [4]  a.  -  •  ##  "Implication 5:"
    r"^\s*(?:[(\[]?\d{1,3}[.):\]]+(?:\s+|(?=[A-Z\"]))|\(?[a-z][.)]\s+|[-*•–·▪◦>]\s+|#+\s+|(?i:implication|inference|fact|point|statement|step) \d{1,3}[.:]\s+)+"
)
_PREAMBLE = re.compile(  # what an assistant says before its list, or to itself, where it does not end in a colon
    r"(?:sure|certainly|of course|okay)[,!.]|let's |(?:here|below)(?: is|'s| are) (?:an? |the |some |my )?(?:list|implications|rewrit|questions|sentences)", re.I
)


def training_sequences(edit, passage):
    """The texts that the inner loop trains on: the passage itself and each line of the self-edit.

    Numbering, bullets, headings' and bold marks are taken off; a line of preamble (one that ends in a colon, or says
    "Sure!") and repeated lines are left out; a "Question:" line is joined with the "Answer:" line after it. Never
    empty: with an empty self-edit it is the passage alone. Of a longer self-edit the first CHARACTERS are read.
    Returns list[str].
    """
    text = re.sub(r"\*\*|__(?=\w)|(?<=\w)__", "", edit[:CHARACTERS].replace("\r", "\n"))
    text = re.sub(r"(?im)^((?:[^\w\n]|\d)*(?:question|q)\b.*)\n[\W\d]*(?=(?:answer|a)\s*:)", r"\1 ", text)
    lines = [_LABEL.sub("", line).strip() for line in text.split("\n")]
    lines = [line for line in lines if re.search(r"\w", line) and not line.endswith(":") and not _PREAMBLE.match(line)]
    return [f"{passage.title}\n{passage.text}".strip(), *dict.fromkeys(lines)]
