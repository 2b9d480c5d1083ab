"""Sampling as logits processors: top-p, and one random generator for each row of a batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor


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
