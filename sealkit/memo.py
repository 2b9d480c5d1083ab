"""What is done need not be done again: results by key, in a dict or in a folder that outlives it.

A run's folder is never half of anything but its journal's last line; that is cut off on resuming.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import zlib
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import filelock
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from safetensors import SafetensorError
from safetensors.torch import load, save
from tqdm.auto import tqdm

ADAPTER = "adapter_model.safetensors"
LOST = (
    "Another process of this run has ended, or this one was told to: all that was finished is kept;"
    " give the same command again, with as many processes as there are by then."
)


class RunError(Exception):
    """What keeps a run from going on, such as a file or another run; it says what to do.

    >>> raise RunError("'runs/1' could not be written")
    Traceback (most recent call last):
    sealkit.memo.RunError: 'runs/1' could not be written
    """


def hidden():
    """Whether bars are hidden: a notebook, whose stderr claims a terminal, would keep them."""
    return True if sys.stderr is not sys.__stderr__ or processes().process_index else None


def remembered(memo, keys, compute, width, title=None):
    """[memo[key] for key in keys]; what is missing, `compute` makes, `width` keys at a time.

    compute: keys -> values, such as one pass of the inner loop. Each part of `width` keys is noted
    when it is done; one that is not wholly known is computed whole, so that bits are those of an
    unbroken run. Parts are dealt to the processes of torchrun or `accelerate launch`. When memory
    runs out, compute gets half as many keys from there on. title: of a terminal's bar, if any.

    >>> memo, square = {("square", 2): 4}, lambda keys: [n * n for _, n in keys]
    >>> remembered(memo, [("square", 2), ("square", 3)], square, width=1)
    [4, 9]
    """
    state, parts = processes(), [keys[i : i + width] for i in range(0, len(keys), width)]
    missing = [part for part in parts if not memo.keys() >= set(part)]
    mine = missing[state.process_index :: state.num_processes]
    width = max(map(len, mine), default=1)  # what is tried, where fewer are left than are allowed

    def halved(error):
        if width == 1 or not should_reduce_batch_size(error):
            raise error
        clear_device_cache(garbage_collection=True)
        half = -(-width // 2)
        tqdm.write(f"Memory ran out with {width} side by side: going on with {half}.")
        return half

    for part in tqdm(mine, title, leave=False, disable=hidden() if title else True):
        values = [memo[key] for key in part] if memo.keys() >= set(part) else []
        while len(values) < len(part):
            try:
                values += compute(part[len(values) :][:width])
            except RuntimeError as error:
                width = halved(error)
        if new := {k: v for k, v in zip(part, values, strict=True) if k not in memo}:
            memo.update(new)  # what is known stays, so that what was made of it stays true
    own = {key: memo[key] for part in mine for key in part}
    for rank in range(min(len(missing), state.num_processes)):  # a gathered policy would be N large
        dict.update(memo, shared(own, rank))
    return [memo[key] for key in keys]


def processes():
    """The processes that torchrun or `accelerate launch` started: their number, and which this is.

    On a CPU, accelerate starts one alone and knows of others only if told that it is a CPU.
    """
    patience = timedelta(days=30)  # while one of them does the M-step
    return PartialState(cpu=not torch.cuda.is_available(), timeout=patience)


def shared(value, rank=0):
    """The value that the process of that rank has, on every process."""
    processes()
    try:
        return broadcast_object_list([value], from_process=rank)[0]
    except RuntimeError as error:  # gloo's, when the other end is gone
        raise RunError(LOST) from error


@contextmanager
def company():
    """Within this context SIGTERM, by which torchrun tells that a process was lost, is a RunError.

    A single process has no company, and dies of it.
    """

    def lost(*_):
        raise RunError(LOST)

    if processes().num_processes == 1:
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


class Journal(dict):
    """A dict whose `update` is on the disk before it returns: in `folder`, a JSON line per entry.

    Keys are tuples, values what JSON can hold; "weights" of a value, LoRA tensors by PEFT's names,
    become a stock PEFT adapter in a folder named by the key. config: the `LoraConfig` saved there.
    Each process (rank) writes its own file and reads all. Raises RunError, naming file and line,
    for what is damaged.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Journal(folder).update({("trial", 1, 0): "done"})
    >>> Journal(folder)
    {('trial', 1, 0): 'done'}
    """

    def __init__(self, folder, config=None, rank=0):
        self.folder, self.config, self.size = Path(folder), config, 0
        self.path = self.folder / (f"journal-{rank}.jsonl" if rank else "journal.jsonl")
        for path in sorted(self.folder.glob("journal*.jsonl")):
            with failing(path, "read"):
                *lines, half = path.read_bytes().split(b"\n")
            if half:
                print(f"The last line of {str(path)!r} was written by half and is left out.")
            if path == self.path:
                self.size = sum(len(line) + 1 for line in lines)
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    key, value, crc = tuple(row["key"]), row["value"], row["crc"]
                    if crc != checksum(row["key"], value):
                        raise ValueError("it has changed since it was written")
                except (ValueError, TypeError, KeyError, RecursionError) as error:
                    raise damaged(f"{path}, line {number}", f"no record ({error!r})") from error
                if isinstance(value, dict) and "weights" in value:
                    value = value | {"weights": self.read(key, value)}
                self[key] = value

    def update(self, rows):
        """Note results (dict, or pairs); if it raises RunError, none of them is in the journal."""
        rows, lines = dict(rows), b""
        for key, value in rows.items():
            if isinstance(value, dict) and "weights" in value:
                value = value | {"weights": self.write(key, value["weights"])}
            row = {"key": key, "value": value, "crc": checksum(key, value)}
            lines += json.dumps(row).encode("ascii") + b"\n"  # a self-edit may hold terminal codes
        with failing(self.path), open(self.path, "ab", buffering=0) as file:
            file.truncate(self.size)
            try:
                written = 0
                while written < len(lines):
                    written += file.write(lines[written:])
                os.fsync(file.fileno())
                if not self.size:
                    synchronize(self.folder)
            except BaseException:
                file.truncate(self.size)
                raise
        self.size += len(lines)
        super().update(rows)

    def write(self, key, weights):
        """Save LoRA tensors as a stock PEFT adapter, such as `policy_1/`; returns its SHA-256."""
        folder = self.folder / "_".join(map(str, key))
        data = save({name: tensor.contiguous() for name, tensor in weights.items()})
        with failing(folder):
            folder.mkdir(exist_ok=True)
            synchronize(self.folder)
            write_whole(folder / ADAPTER, data)
        write_json(folder / "adapter_config.json", self.config.to_dict() | {"inference_mode": True})
        return hashlib.sha256(data).hexdigest()

    def read(self, key, value):
        """The LoRA tensors that `write` saved."""
        path = self.folder / "_".join(map(str, key)) / ADAPTER
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != value["weights"]:
                raise ValueError("its bytes have changed since it was saved")
            return load(data)
        except (OSError, ValueError, SafetensorError) as error:
            raise damaged(path, error) from error


def checksum(key, value):
    """CRC-32 of an entry as JSON, by which a damaged line is known."""
    return zlib.crc32(json.dumps([key, value]).encode("ascii"))


OTHERWISE = "or choose a new folder."


@contextmanager
def open_run(folder, settings, machine, config=None):
    """The Journal in `folder`, new or as it was left, held by this run alone; None: a dict.

    settings: flat dict of all that shapes the results; what is there has to be the same. machine:
    dict of what shapes their last digits, such as versions; a difference is printed.
    Raises RunError, changing nothing, for other settings, another process at work, foreign or
    damaged files.
    """
    if folder is None:
        yield {}
        return
    folder, state = Path(folder), processes()
    with company(), hold(folder) if state.is_main_process else nullcontext():
        record = folder / "run.json"
        if state.is_main_process and not record.exists():
            write_json(record, {"settings": settings, "machine": machine})
        state.wait_for_everyone()
        try:
            found = json.loads(record.read_text("ascii"))
            other = differences(found["settings"], json.loads(json.dumps(settings)))
            elsewhere = differences(found["machine"], machine)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise damaged(record, repr(error)) from error
        if other:
            where = f"{str(folder)!r} holds a run with other settings ({other})"
            raise RunError(f"{where}: give the same again to go on with it, {OTHERWISE}")
        journal = Journal(folder, config, state.process_index)
        if state.is_main_process:
            with failing(folder):
                for half in folder.rglob(".*.tmp"):  # what a killed process was writing
                    half.unlink()
        state.wait_for_everyone()
        if journal and state.is_main_process:
            trials = sum(key[0] == "trial" for key in journal)
            print(f"Going on with the run in {str(folder)!r}: {trials} trials are there.")
            if elsewhere:
                print(f"It began elsewhere ({elsewhere}): from here on last digits may differ.")
        yield journal


@contextmanager
def hold(folder):
    """Hold a run's folder, new or old, for this process, until it ends, however it ends."""
    with failing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir() if path.suffix != ".tmp"} - {".lock"}
    where, lock = repr(str(folder)), filelock.FileLock(folder / ".lock", timeout=0)
    if "trials.jsonl" in there:
        raise RunError(f"{where} holds a run of sealkit 0.1: go on in that version, {OTHERWISE}")
    if there and "run.json" not in there:
        raise RunError(f"{where} holds other files and no run: move those away, {OTHERWISE}")
    try:
        with failing(folder), suppress(NotImplementedError):  # network drives without locks
            lock.acquire()
    except filelock.Timeout:
        said = (
            f"Another process is at work on the run in {where}: wait for it, stop it, {OTHERWISE}"
        )
        raise RunError(said) from None
    try:
        yield
    finally:
        lock.release()


def differences(there, here):
    """What differs between two flat dicts, in words; empty if nothing does."""
    pairs = {name: (there.get(name, "missing"), here.get(name, "missing")) for name in there | here}
    return "; ".join(
        f"{name} is {a} there and {b} here" for name, (a, b) in pairs.items() if a != b
    )


def write_json(path, value):
    """Write JSON to a file, see `write_text`; a set becomes a sorted list."""
    write_text(path, json.dumps(value, indent=1, default=sorted) + "\n")


def write_text(path, text):
    """Write a text to a file, see `write_whole`. Raises RunError."""
    with failing(path):
        write_whole(path, text.encode("utf-8", "replace"))


def write_whole(path, data):
    """Write bytes to a file, or to what a link points to, all or none. Raises OSError.

    Whatever stops it, the file holds `data` or still what it held before.
    """
    path = Path(path).resolve()
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    synchronize(path.parent)


def synchronize(folder):
    """Have the system put a folder's list of files on the disk; only POSIX opens folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def damaged(where, why):
    """The RunError for a file that is not as the run left it."""
    return RunError(
        f"{where}: {why}. Put back a copy, or choose a new folder; nothing was changed."
    )


@contextmanager
def failing(path, act="written"):
    """Within this context, errors of the system become a RunError about `path`."""
    try:
        yield
    except filelock.Timeout:
        raise
    except OSError as error:
        raise RunError(
            f"{str(path)!r} could not be {act} ({error.strerror or error}). All that was finished "
            "before is kept: mend that (free some space, allow writing) and give the command again."
        ) from error
