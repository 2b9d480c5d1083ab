"""The processes that torchrun or `accelerate launch` started, and what they share."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from .files import RunError

Value = TypeVar("Value")
LOST_PROCESS = (
    "Another process of this run has ended, or this one was told to: all that was finished is kept;"
    " give the same command again, with as many processes as there are by then."
)


def progress_disabled() -> bool | None:
    """tqdm's `disable`: None, for a terminal alone; in a notebook or a later process, True.

    A notebook's stderr claims to be a terminal, and its outputs would keep the bars.
    """
    return True if sys.stderr is not sys.__stderr__ or distributed_state().process_index else None


def distributed_state() -> PartialState:
    """How many processes there are, and which of them this is.

    On a CPU, accelerate starts one alone and knows of others only if told that it is a CPU.
    """
    patience = timedelta(days=30)  # while one of them does the M-step
    return PartialState(cpu=not torch.cuda.is_available(), timeout=patience)


def broadcast(value: Value, rank: int = 0) -> Value:
    """The value that the process of that rank has, on every process."""
    distributed_state()
    try:
        return broadcast_object_list([value], from_process=rank)[0]
    except RuntimeError as error:  # gloo's, when the other end is gone
        raise RunError(LOST_PROCESS) from error


@contextmanager
def sigterm_as_run_error() -> Iterator[None]:
    """Within this context SIGTERM, which torchrun sends when a process was lost, is a RunError.

    A single process ends by SIGTERM, as any other program.
    """

    def lost(*_: object) -> None:
        raise RunError(LOST_PROCESS)

    if distributed_state().num_processes == 1:
        yield
        return
    before = signal.signal(signal.SIGTERM, lost)
    try:
        yield
    except RunError:
        before = signal.SIG_IGN  # torchrun's may come while the sentence is on its way
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
