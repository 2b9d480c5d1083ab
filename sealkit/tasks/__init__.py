"""What can be learned: a domain is a module that has what `Task` declares.

A page such as `knowledge`, or `puzzles`; the loops call these functions and know no domain.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..inner_loop import Lesson
    from ..policy import Config

# What a domain learns from, such as a Passage or a Puzzle
Item = TypeVar("Item")


class Task(Protocol[Item]):
    """What `seal`, `run_trials` and `compare_arms` need of a domain."""

    __name__: str

    def name(self, item: Item, /) -> tuple[Hashable, ...]:
        """What distinguishes one item from another, its title first; seeds are drawn from it."""

    def parts(self, item: Item, config: Config, /) -> Sequence[Item]:
        """What a self-edit is written of, a line of each if there are several: the item alone."""

    def prompt(self, item: Item, config: Config, style: str | None = None, /) -> str:
        """What asks for a self-edit of the item or of a part, C."""

    def lesson(self, item: Item, edit: str, config: Config, /) -> Lesson:
        """What the inner loop trains on for a self-edit; for "", the item alone."""

    def exam(self, item: Item, /) -> Sequence[object]:
        """The item's questions; each prompt of `questions` belongs to one, in their order."""

    def questions(self, item: Item, config: Config, in_context: bool = False, /) -> list[str]:
        """The exam's prompts τ, without the item unless `in_context`."""

    def reward(self, item: Item, answers: Sequence[str], config: Config | None = None, /) -> float:
        """r in [0, 1] of the answers to `questions`."""


class Domain(Task[Item], Protocol):
    """What the command line and its page need, too."""

    NOUN: str  # what an item is called
    KINDS: tuple[str, ...]  # of self-edits

    def style(self, item: Item, edit: str, /) -> str:
        """Which of KINDS a self-edit is."""

    def config_for(self, tokenizer: PreTrainedTokenizerBase, /) -> Config:
        """The Config that goes with a model."""
