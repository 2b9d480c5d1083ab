"""Sampling: top-p and one random generator a row, as logits processors; prompts read once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

LONG = 128  # tokens of a prompt from which one that repeats in a batch is worth reading once


def read_once(
    model: Any, prompts: Sequence[str], ids: Tensor, mask: Tensor, options: dict[str, Any]
) -> Any:
    """The keys and values of a batch's prompts but for their last token, each prompt read once.

    ids, mask: (len(prompts), length). options: for `generate`. Returns a cache of transformers;
    None for a model whose cache can't be cut, such as one with a sliding window, and for one whose
    own adapter is off, in place of which each block of rows may have another (`lora`).
    """
    if any(getattr(module, "disable_adapters", False) is True for module in model.modules()):
        return None
    different = list(dict.fromkeys(prompts))
    rows = [prompts.index(prompt) for prompt in different]
    inputs = {"input_ids": ids[rows], "attention_mask": mask[rows], "max_new_tokens": 1}
    read = model.generate(**inputs, **options, return_dict_in_generate=True)
    cache = read.past_key_values
    if not all(getattr(layer, "is_croppable", False) for layer in getattr(cache, "layers", [None])):
        return None
    cache.crop(-1)
    places = [different.index(prompt) for prompt in prompts]
    cache.reorder_cache(torch.tensor(places, device=ids.device))
    return cache


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
