"""The processes that torchrun or `accelerate launch` started, and what they share."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from threading import Timer
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, get_cpu_distributed_information

from .files import RunError

Value = TypeVar("Value")
LOST_PROCESS = (
    "Another process of this run has ended, or this one was told to: all that was finished is kept;"
    " give the same command again, with as many processes as there are by then."
)

SIZES = "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"
LAUNCHED = *SIZES, "LOCAL_RANK"  # by which accelerate takes a process for one of several
ARRIVE, NOTICE = 300, 15  # seconds for all processes to start; until it is said who is waited for


def run_alone() -> None:
    """Be the only process, whatever a launcher has left in the environment."""
    for name in LAUNCHED:
        os.environ.pop(name, None)


@cache
def await_processes() -> object:
    """Wait until all processes that the environment names have started; nothing, if it names none.

    accelerate would wait for them as long as for a result, which may take days. Returns their
    store, to be kept. Raises RunError, naming what to unset, if some do not come.
    """
    named = {name: os.environ[name] for name in LAUNCHED if name in os.environ}
    if "LOCAL_RANK" not in named and set(named.values()) <= {"1"}:
        return None
    told = ", ".join(f"{name}={value}" for name, value in named.items())
    remedy = f"unset {' '.join(named)}, or start all of them with torchrun"
    notice = Timer(NOTICE, print, [f"Waiting for the other processes ({told}) ..."])
    try:
        os.environ.setdefault("MASTER_PORT", "29500")  # as accelerate does
        processes = get_cpu_distributed_information()
        place, patience = (processes.rank, processes.world_size), timedelta(seconds=ARRIVE)
        notice.start()
        return next(torch.distributed.rendezvous("env://", *place, timeout=patience))
    except (RuntimeError, ValueError) as error:
        why = f"The environment ({told}) tells of several processes, but they can't meet"
        raise RunError(f"{why}: {remedy}.") from error
    finally:
        notice.cancel()


def progress_disabled() -> bool | None:
    """tqdm's `disable`: None, for a terminal alone; in a notebook or a later process, True.

    A notebook's stderr claims to be a terminal, and its outputs would keep the bars.
    """
    return True if sys.stderr is not sys.__stderr__ or distributed_state().process_index else None


def distributed_state() -> PartialState:
    """How many processes there are, and which of them this is.

    On a CPU, accelerate starts one alone and knows of others only if told that it is a CPU.
    """
    await_processes()
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
