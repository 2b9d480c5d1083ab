"""What is done need not be done again: results by key, in a dict or in a folder that outlives the
process.

A run's folder is never half of anything but its journal's last line, and that one is cut off when
the run goes on.
"""

import hashlib
import json
import os
import zlib
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import filelock
import torch
from accelerate import PartialState
from accelerate.utils import find_executable_batch_size, gather_object
from safetensors import SafetensorError
from safetensors.torch import load, save
from tqdm.auto import tqdm

ADAPTER = "adapter_model.safetensors"
LIBRARIES = "torch", "transformers", "peft", "bitsandbytes"


class RunError(Exception):
    """A run's folder cannot be read or written, or belongs to another run; it says what to do."""


def remembered(memo, keys, compute, width, title=None):
    """[memo[key] for key in keys]; what is missing, `compute` makes, `width` keys at a time.

    compute: list of keys -> list of values, for example one pass of the inner loop. Each part of
    `width` keys is noted when it is done; one that is not wholly known is computed whole, so that
    batches, and so bits, are those of an unbroken run. The parts are dealt to the processes of
    `accelerate launch`. When memory runs out, compute gets half as many keys at a time from there
    on. title: of the progress bar, which only a terminal shows.

    >>> memo = {("square", 2): 4}
    >>> remembered(memo, [("square", 2), ("square", 3)], lambda keys: [n * n for _, n in keys], width=1)
    [4, 9]
    """
    state, parts = PartialState(), [keys[i : i + width] for i in range(0, len(keys), width)]
    missing = [part for part in parts if not memo.keys() >= set(part)]
    mine = missing[state.process_index :: state.num_processes]
    at_a_time = max(map(len, mine), default=0)

    def halve():
        nonlocal at_a_time
        if at_a_time == 1:
            raise  # the error for which accelerate calls this
        tqdm.write(
            f"Memory ran out with {at_a_time} side by side: going on with {-(-at_a_time // 2)}."
        )
        at_a_time = -(-at_a_time // 2)
        return at_a_time

    @find_executable_batch_size(starting_batch_size=at_a_time, reduce_batch_size_fn=halve)
    def work(at_a_time):
        for part in tqdm(mine, title, leave=False, disable=None):
            if not memo.keys() >= set(part):
                values = []
                while len(values) < len(part):
                    values += compute(part[len(values) :][:at_a_time])
                memo.update(zip(part, values, strict=True))

    if mine:
        work()
    if state.num_processes > 1 and missing:
        for rows in gather_object([{key: memo[key] for part in mine for key in part}]):
            dict.update(memo, rows)
    return [memo[key] for key in keys]


class Journal(dict):
    """A dict whose `update` is on the disk before it returns: in `folder`, a JSON line for each
    entry.

    Keys are tuples and values what JSON can hold; the "weights" of a value, LoRA tensors by PEFT's
    names, become a stock PEFT adapter in a folder named by the key. config: the `LoraConfig` that
    is saved with them. Each process writes a journal of its own and reads all. `halves`: paths
    whose last line was written by half; it is left out.
    Raises RunError, naming file and line, for what is damaged.
    """

    def __init__(self, folder, config=None, rank=0):
        self.folder, self.config, self.halves = Path(folder), config, []
        self.path, self.size = (
            self.folder / (f"journal-{rank}.jsonl" if rank else "journal.jsonl"),
            0,
        )
        for path in sorted(self.folder.glob("journal*.jsonl")):
            with failing(path, "read"):
                *lines, rest = path.read_bytes().split(b"\n")
            self.halves += [path] if rest else []
            self.size = sum(len(line) + 1 for line in lines) if path == self.path else self.size
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    key, value = tuple(row["key"]), row["value"]
                    if row["crc"] != checksum(row["key"], value):
                        raise ValueError("it has changed since it was written")
                except (ValueError, TypeError, KeyError, RecursionError) as error:
                    raise damaged(f"{path}, line {number}", f"not a record ({error!r})") from error
                self[key] = (
                    value | {"weights": self.read(key, value)} if has_weights(value) else value
                )

    def update(self, rows):
        """Note results (dict, or pairs) by key. If it raises RunError, none of them is in the
        journal."""
        rows, lines = dict(rows), b""
        for key, value in rows.items():
            kept = (
                value | {"weights": self.write(key, value["weights"])}
                if has_weights(value)
                else value
            )
            row = {"key": key, "value": kept, "crc": checksum(key, kept)}
            lines += (
                json.dumps(row).encode("ascii") + b"\n"
            )  # ASCII: a self-edit may hold what terminals obey
        with failing(self.path), open(self.path, "ab", buffering=0) as file:
            file.truncate(self.size)
            try:
                written = 0
                while written < len(lines):
                    written += file.write(lines[written:])
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(self.size)
                raise
        self.size += len(lines)
        super().update(rows)

    def adapter(self, key):
        """The folder of a key's adapter, such as `policy_1`."""
        return self.folder / "_".join(map(str, key))

    def write(self, key, weights):
        """Save LoRA tensors as a stock PEFT adapter; returns the file's SHA-256."""
        data, folder = (
            save({name: tensor.contiguous() for name, tensor in weights.items()}),
            self.adapter(key),
        )
        with failing(folder):
            folder.mkdir(exist_ok=True)
        write_json(folder / "adapter_config.json", self.config.to_dict() | {"inference_mode": True})
        write_whole(folder / ADAPTER, data)
        return hashlib.sha256(data).hexdigest()

    def read(self, key, value):
        """The LoRA tensors that `write` saved."""
        path = self.adapter(key) / ADAPTER
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != value["weights"]:
                raise ValueError("its bytes have changed since it was saved")
            return load(data)
        except (OSError, ValueError, SafetensorError) as error:
            raise damaged(path, error) from error


def has_weights(value):
    return isinstance(value, dict) and "weights" in value


def checksum(key, value):
    return zlib.crc32(json.dumps([key, value]).encode("ascii"))


@contextmanager
def open_run(folder, settings, machine, config=None):
    """The Journal in `folder`, new or as it was left, held by this run alone; without a folder, a
    dict.

    settings: dict of all that shapes the results; what is there has to be the same. machine: dict
    of what shapes their last digits, such as versions; a difference is printed. config: see
    `Journal`.
    Raises RunError, changing nothing, for other settings, another process at work, foreign files or
    damaged ones.
    """
    if folder is None:
        yield {}
        return
    folder, record, state = Path(folder), Path(folder) / "run.json", PartialState()
    settings = json.loads(json.dumps(settings))
    with failing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "trials.jsonl").exists():
            raise RunError(
                f"{str(folder)!r} holds a run of sealkit 0.1, whose files are others: go on with it in that "
                "version, or choose a new folder."
            )
        if not record.exists() and any(
            path.name not in (".lock", "run.json.tmp") for path in folder.iterdir()
        ):
            raise RunError(
                f"{str(folder)!r} holds other files and no run: choose a new folder, or move those away."
            )
    with hold(folder) if state.is_main_process else suppress():
        if not record.exists() and state.is_main_process:
            write_json(record, settings | {"machine": machine})
        state.wait_for_everyone()
        found = read_object(record)
        then = found.pop("machine", {})
        if changed := differences(found, settings):
            raise RunError(
                f"{str(folder)!r} holds a run with other settings ({changed}): give the same again to go on "
                "with it, or choose a new folder."
            )
        journal = Journal(folder, config, state.process_index)
        state.wait_for_everyone()
        if journal and state.is_main_process:
            trials = sum(key[0] == "trial" for key in journal)
            print(f"Going on with the run in {str(folder)!r}: {trials} trials are there.")
        for path in journal.halves:
            print(f"The last line of {str(path)!r} was written by half and is left out.")
        if changed := differences(then, machine):
            print(f"This run began elsewhere ({changed}): from here on last digits may differ.")
        yield journal


@contextmanager
def hold(folder):
    """Hold `folder` for this process; the system lets it go when the process ends, however it
    ends."""
    with failing(folder), suppress(NotImplementedError):  # network drives without locks
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RunError(
                f"Another process is at work on the run in {str(folder)!r}: wait for it, stop it, or choose "
                "a new folder."
            ) from None
    try:
        yield
    finally:
        lock.release()


def machine_of(model):
    """What shapes the last digits of a run: versions of the libraries, device and compute dtype, as
    a dict."""
    device = f"CPU, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    if model.device.type == "cuda":
        device = torch.cuda.get_device_name(model.device)
    versions = {name: version(name) for name in LIBRARIES}
    return versions | {"device": device, "dtype": str(model.dtype).removeprefix("torch.")}


def fingerprint(tensors):
    """16 hex digits of the starts of some tensors: those of two checkpoints differ."""
    digest = hashlib.sha256()
    for tensor in tensors:
        start = tensor.detach().flatten()[:512].cpu().contiguous().view(torch.uint8)
        digest.update(start.numpy().tobytes())
    return digest.hexdigest()[:16]


def differences(there, here, prefix=""):
    """What differs between two nested dicts, in words; empty if nothing does.

    >>> differences({"seed": 0, "recipe": {"steps": 5}}, {"seed": 1, "recipe": {"steps": 5}})
    'seed is 0 there and 1 here'
    """
    found = []
    for name in {**there, **here}:
        a, b = there.get(name, "missing"), here.get(name, "missing")
        if isinstance(a, dict) and isinstance(b, dict):
            found.append(differences(a, b, f"{prefix}{name}."))
        elif a != b:
            found.append(f"{prefix}{name} is {a} there and {b} here")
    return "; ".join(filter(None, found))


def read_object(path):
    """The JSON object in a file. Raises RunError if it holds none."""
    try:
        return dict(json.loads(Path(path).read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError) as error:
        raise damaged(path, error) from error


def write_json(path, value):
    """Write JSON to a file, see `write_whole`; a set becomes a sorted list."""
    write_whole(path, json.dumps(value, indent=1, default=sorted).encode("ascii") + b"\n")


def write_whole(path, data):
    """Write bytes to a file, which is then the old one or the new one, never half. Raises
    RunError."""
    path, temporary = Path(path), Path(f"{path}.tmp")
    with failing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if os.name == "posix":  # have the system put the folder's list of files on the disk too
            handle = os.open(path.parent, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


def damaged(where, why):
    """The RunError for a file that is not as the run left it."""
    return RunError(
        f"{where}: {why}. Put back a copy of it, or choose a new folder; nothing was changed."
    )


@contextmanager
def failing(path, act="written"):
    """Within this context, errors of the system become a RunError about `path`."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{str(path)!r} could not be {act} ({error.strerror or error}). All that was finished before is kept: mend "
            "that (free some space, allow writing) and give the same command again."
        ) from error
