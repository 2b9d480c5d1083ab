"""Sampling: top-p and one random generator a row, as logits processors; what prompts share, read
once."""

from collections.abc import Sequence
from os.path import commonprefix
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, LogitsProcessor

LONG = 128  # tokens of a prompt from which one that repeats in a batch is worth reading once
LONG_PREFIX = 64  # tokens that all prompts of a batch begin with, from which the same holds


def shared_tokens(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with, the last token of each left out; 0 if fewer than
    LONG_PREFIX.

    >>> shared_tokens([[*range(70), 1, 2], [*range(70), 3]])
    70
    """
    shared = min(len(commonprefix(rows)), min(map(len, rows)) - 1)
    return shared if shared >= LONG_PREFIX else 0


def read_once(
    model: Any, rows: Sequence[list[int]], max_new_tokens: int, options: dict[str, Any]
) -> tuple[Tensor, Tensor, Any]:
    """(ids, mask, cache) of a batch of prompts, of which what repeats has been read, once.

    ids, mask: (rows, longest), with pads on the left, but behind what all rows begin with. cache:
    of transformers, with keys and values for the first tokens of each row, but never its last;
    None where nothing repeats, or for a model whose cache can't be cut, such as one that has a
    state instead of keys, or a window shorter than a text. Where adapters lie side by side
    (`lora`), each reads for its own block of rows. options: for `generate`.
    """
    # 1. one row a prompt: what all share, pads, the rest
    cache, length = DynamicCache(config=model.config), max(map(len, rows)) + max_new_tokens
    fits = all(
        getattr(layer, "is_croppable", False) and getattr(layer, "sliding_window", length) >= length
        for layer in cache.layers
    )
    prompts = list(map(tuple, rows))
    shared = shared_tokens(rows) if fits and len(set(prompts)) > 1 else 0
    rest = [torch.tensor(row[shared:]) for row in rows]
    ids = pad_sequence(rest, True, options["pad_token_id"], "left")
    mask = pad_sequence([torch.ones_like(row) for row in rest], True, 0, "left")
    head = torch.tensor(rows[0][:shared], dtype=torch.long).expand(len(rows), shared)
    ids = torch.cat([head, ids], 1).to(model.device)
    mask = torch.cat([torch.ones_like(head), mask], 1).to(model.device)

    def read(ids: Tensor, mask: Tensor) -> None:
        inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
        model.generate(**inputs, **options, max_new_tokens=1)

    # 2. which rows are read: each prompt once, but all where each block has an adapter of its own
    blocks, places = getattr(model, "blocks", 1), list(range(len(rows)))
    if fits and blocks == 1 and ids.shape[1] >= LONG:
        places = [prompts.index(prompt) for prompt in dict.fromkeys(prompts)]

    # 3. what all rows share, once for each block
    if shared and len(places) > blocks:
        read(ids[:blocks, :shared], mask[:blocks, :shared])
        cache.batch_repeat_interleave(len(places) // blocks)

    # 4. the rest of these rows, if they are not all
    if len(places) < len(rows):
        read(ids[places], mask[places])
        cache.crop(-1)
        different = [prompts[place] for place in places]
        copies = [different.index(prompt) for prompt in prompts]
        cache.batch_select_indices(torch.tensor(copies, device=ids.device))
    return ids, mask, cache if cache.get_seq_length() else None


class TopP(LogitsProcessor):
    """Top-p sampling as transformers' `TopPLogitsWarper` does it, but sorted by numpy: torch takes
    30 times as long for that on a CPU."""

    def __init__(self, top_p: float) -> None:
        self.top_p = top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ordered = torch.from_numpy(np.sort(scores.float().cpu().numpy())).to(scores)
        excluded = (ordered.softmax(-1).cumsum(-1) <= 1 - self.top_p).sum(-1, keepdim=True)
        least = ordered.gather(-1, excluded.clamp(max=scores.shape[-1] - 1))
        return scores.masked_fill(scores < least, -torch.inf)


class SeededSampling(LogitsProcessor):
    """Gumbel noise from one generator a row: the likeliest token is a draw from softmax(logits).

    What a row draws does not depend on the rows beside it.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        drawn = [torch.rand(scores.shape[1], generator=g) for g in self.generators]
        uniform = torch.stack(drawn).clamp(1e-10, 1 - 1e-7)
        return scores - torch.log(-torch.log(uniform)).to(scores)
