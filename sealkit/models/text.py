"""From texts to tokens, and where a text ends."""

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase, StopStringCriteria


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each of some texts that nobody has checked: the name of a special token is
    plain text, and half of a surrogate pair is U+FFFD.

    A tokenizer's start token stands before a text, but nothing behind it, also where the tokenizer
    was saved with `add_eos_token`: no model goes on after an end token.
    """
    if not texts:
        return []
    valid = [t.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for t in texts]
    *rows, whole = tokenizer([*valid, "a"], split_special_tokens=True)["input_ids"]
    bare = tokenizer("a", split_special_tokens=True, add_special_tokens=False)["input_ids"]
    ends = range(len(whole), len(bare) - 1, -1)
    behind = next((len(whole) - n for n in ends if whole[n - len(bare) : n] == bare), 0)
    return [row[: len(row) - behind] for row in rows]


@lru_cache
def stop_criterion(
    tokenizer: PreTrainedTokenizerBase, stops: tuple[str, ...]
) -> StopStringCriteria:
    """transformers' criterion for `stops`, which reads the whole vocabulary to make itself."""
    return StopStringCriteria(tokenizer, list(stops))
