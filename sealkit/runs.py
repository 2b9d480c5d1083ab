"""The run folder: what a run has done, on disk so that a kill at any moment loses at most the pass at work.

Files that grow get whole lines, each on the disk before the run goes on; all others are written under a temporary name
and renamed. So a folder is never half of anything but its last line, and that one is cut off when the run resumes.
"""

import hashlib
import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import filelock
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .exam import accuracy
from .inner_loop import Trial
from .self_edits import self_edit_seed

ADAPTER = "adapter_model.safetensors"
LIBRARIES = "torch", "transformers", "peft", "bitsandbytes"


class RunError(Exception):
    """A run folder cannot be read or written, or belongs to another run; the message names the file and what to do."""


class Journal:
    """A JSONL file that only grows, or (None) rows in memory alone. `rows` are its objects, each with its "iteration".

    A last line without its end is left out, and cut off by the next `append`, before which nothing is written.
    Raises RunError, naming the line, if another line is no such object.
    """

    def __init__(self, path=None):
        self.path, self.rows = path and Path(path), []
        with failing(path, "read"):
            data = self.path.read_bytes() if path and self.path.exists() else b""
        *lines, self.rest = data.split(b"\n")
        self.size = len(data) - len(self.rest)
        for number, line in enumerate(lines, 1):
            try:
                self.rows.append(dict(json.loads(line)))
                if not isinstance(self.rows[-1]["iteration"], int):
                    raise TypeError("its iteration is not a number")
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise self.damaged(number, f"not a record ({error!r})") from error

    def of(self, iteration):
        """(number of the line, row) of each row of one iteration."""
        return [(number, row) for number, row in enumerate(self.rows, 1) if row["iteration"] == iteration]

    def append(self, rows):
        """Add rows (dicts). When it returns, they are on the disk; if it raises RunError, none of them is in the file."""
        if self.path:
            self.write("".join(json.dumps(row) + "\n" for row in rows).encode("ascii"))
        self.rows += rows

    def write(self, data):
        """Put bytes at the end of the file, all or none; ASCII, since a self-edit may hold what a terminal obeys, or what UTF-8 cannot hold."""
        with failing(self.path), open(self.path, "ab", buffering=0) as file:
            file.truncate(self.size)
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(self.size)
                raise
        self.size, self.rest = self.size + len(data), b""

    def damaged(self, number, why):
        """The RunError for one line."""
        return damaged(f"{self.path}, line {number}", why)


class Run:
    """What a run over `passages` with k self-edits each has done, in the folder that `open_run` opened for it, or (None) in memory alone."""

    def __init__(self, passages, k, seed, folder=None):
        self.passages, self.k, self.seed = passages, k, seed
        self.folder, self.saved = folder and Path(folder), -1  # number of the last policy
        self.self_edits, self.trials = (Journal(folder and self.folder / f"{name}.jsonl") for name in ("self_edits", "trials"))
        if folder is None:
            return
        numbers = [int(path.name[7:]) for path in self.folder.glob("policy_*") if path.name[7:].isdecimal()]
        self.saved = max(numbers, default=-1)
        reached = max((row["iteration"] for row in self.self_edits.rows + self.trials.rows), default=0)
        for number in range(max(self.saved, reached)):
            if number not in numbers:
                raise damaged(self.folder / f"policy_{number}", "missing, though later results are there")

    def self_edits_of(self, iteration):
        """The self-edits of an iteration that are there, ordered by passage and candidate: list[str]."""
        texts = []
        for number, row in self.self_edits.of(iteration):
            if [row.get("passage"), row.get("candidate")] != list(divmod(len(texts), self.k)) or not isinstance(row.get("self_edit"), str):
                raise self.self_edits.damaged(number, "not the next self-edit")
            texts.append(row["self_edit"])
        return texts

    def add_self_edits(self, iteration, texts):
        """Record the next self-edits (list[str]) of an iteration."""
        first = len(self.self_edits.of(iteration))
        self.self_edits.append([self.place(iteration, *divmod(first + n, self.k)) | {"self_edit": text} for n, text in enumerate(texts)])

    def trials_of(self, iteration, pairs):
        """The trials of an iteration that are there: {number of the pair: Trial}. pairs: (passage, self-edit), the first of k + 1 without one."""
        trials = {}
        for number, row in self.trials.of(iteration):
            try:
                n = row["passage"] * (self.k + 1) + (0 if row["candidate"] is None else row["candidate"] + 1)
                passage, edit = pairs[n]
                trial = Trial(row["self_edit"], row["reward"], tuple(row["answers"]), tuple(row["losses"]), row["tokens"], row["reason"])
                if n in trials or trial.self_edit != edit or accuracy(trial.answers, passage) != trial.reward:
                    raise ValueError("self-edit, answers and reward do not belong together")
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise self.trials.damaged(number, f"not a trial of this run ({error})") from error
            trials[n] = trial
        return trials

    def add_trials(self, iteration, done):
        """Record a Pass; trials of it that are there already stay as they are."""
        there = {(row["passage"], row["candidate"]) for _, row in self.trials.of(iteration)}
        places = {n: (n // (self.k + 1), n % (self.k + 1) - 1 if n % (self.k + 1) else None) for n in done.trials}
        self.trials.append([self.place(iteration, *places[n]) | asdict(trial) for n, trial in done.trials.items() if places[n] not in there])

    def place(self, iteration, i, j):
        """What begins a record: which self-edit of which passage, and the seed that it was sampled with; none (None) has none."""
        passage = self.passages[i]
        seed = None if j is None else self_edit_seed((self.seed, iteration), passage, j)
        return {"iteration": iteration, "passage": i, "title": passage.title, "candidate": j, "seed": seed}

    def save_policy(self, number, policy, **facts):
        """Save the policy as a stock PEFT adapter in `policy_<number>/`, with `facts` as its `iteration.json`."""
        if self.folder is None:
            return
        final, temporary = self.folder / f"policy_{number}", self.folder / f"policy_{number}.tmp"
        with failing(final):
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                policy.save_pretrained(temporary)
                facts["sha256"] = hashlib.sha256((temporary / ADAPTER).read_bytes()).hexdigest()
                (temporary / "iteration.json").write_text(json.dumps(facts) + "\n", encoding="ascii")
                for path in temporary.iterdir():
                    synchronize(path)
                os.rename(temporary, final)
                synchronize(self.folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        self.saved = number

    def facts(self, number):
        """What was saved with policy `number`, a dict."""
        return read_object(self.folder / f"policy_{number}" / "iteration.json")

    def policy(self, number, like):
        """The LoRA tensors of policy `number`, as PEFT names them. like: tensors of the same names and shapes, which it is if nothing is kept."""
        if self.folder is None:
            return like
        path = self.folder / f"policy_{number}" / ADAPTER
        try:
            tensors = load_file(path)
            if hashlib.sha256(path.read_bytes()).hexdigest() != self.facts(number).get("sha256"):
                raise ValueError("its bytes have changed since it was saved")
            if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in like.items()}:
                raise ValueError("it is the adapter of another model")
        except (OSError, ValueError, SafetensorError) as error:
            raise damaged(path, error) from error
        return {name: tensors[name].to(tensor) for name, tensor in like.items()}


@contextmanager
def open_run(folder, passages, k, seed, settings, machine, log):
    """The Run in `folder`, new or as it was left, held by this process alone.

    passages, k, seed: the run's. settings: dict of all that shapes the results; what is there has to be the same.
    machine: dict of what shapes their last digits, such as versions; a difference is told. log: takes lines of text.
    Raises RunError, changing nothing, for other settings, another process at work, foreign files or damaged ones.
    """
    if folder is None:
        yield Run(passages, k, seed)
        return
    folder, record = Path(folder), Path(folder) / "run.json"
    settings = json.loads(json.dumps(settings))
    with failing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not record.exists() and any(path.name not in (".lock", "run.json.tmp") for path in folder.iterdir()):
            raise RunError(f"{str(folder)!r} holds other files and no run: choose a new folder, or move those away.")
    with hold(folder):
        if not record.exists():
            write(record, settings | {"machine": machine})
            yield Run(passages, k, seed, folder)
            return
        found = read_object(record)
        then = found.pop("machine", {})
        refuse_other(folder, found, settings)
        run = Run(passages, k, seed, folder)
        log(f"Going on with the run in {str(folder)!r}: {max(run.saved, 0)} iterations and {len(run.trials.rows)} trials are there.")
        for journal in (run.self_edits, run.trials):
            if journal.rest:
                log(f"The last line of {str(journal.path)!r} was written by half and is left out.")
        if changed := differences(then, machine):
            log(f"This run began elsewhere ({changed}): from here on last digits may differ.")
        yield run


@contextmanager
def hold(folder):
    """Hold `folder` for this process; the system lets it go when the process ends, however it ends."""
    with failing(folder), suppress(NotImplementedError):  # network drives without locks
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise RunError(f"Another process is at work on the run in {str(folder)!r}: wait for it, stop it, or choose a new folder.") from None
    try:
        yield
    finally:
        lock.release()


def machine_of(model):
    """What shapes the last digits of a run: versions of the libraries, device and compute dtype, as a dict."""
    device = f"CPU, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    if model.device.type == "cuda":
        device = torch.cuda.get_device_name(model.device)
    return {name: version(name) for name in LIBRARIES} | {"device": device, "dtype": str(model.dtype).removeprefix("torch.")}


def fingerprint(tensors):
    """16 hex digits of the starts of some tensors: those of two checkpoints differ."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().flatten()[:512].cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def refuse_other(path, found, settings):
    """Raise RunError, naming what differs, unless two dicts of settings are equal."""
    if changed := differences(found, settings):
        raise RunError(f"{str(path)!r} holds a run with other settings ({changed}): give the same again to go on with it, or choose a new folder.")


def differences(there, here):
    """What differs between two nested dicts, in words; empty if nothing does."""
    there, here = flat(there), flat(here)
    return "; ".join(f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
                     for name in {**there, **here} if there.get(name) != here.get(name))


def flat(nested, prefix=""):
    """{"a.b": value} of {"a": {"b": value}}."""
    pairs = {}
    for name, value in nested.items():
        pairs |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return pairs


def read_object(path):
    """The JSON object in a file. Raises RunError if it holds none."""
    try:
        return dict(json.loads(Path(path).read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError) as error:
        raise damaged(path, error) from error


def read_results(path, settings):
    """{arm: accuracies} of a file of results as `evaluation.compare` writes it, empty if there is none. Raises RunError for other settings."""
    if not Path(path).exists():
        return {}
    found = read_object(path)
    refuse_other(path, found.get("settings", {}), json.loads(json.dumps(settings)))
    return found["accuracy"]


def write(path, value):
    """Write JSON to a file, which is then the old one or the new one, never half."""
    path, temporary = Path(path), Path(f"{path}.tmp")
    with failing(path):
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="ascii")
        synchronize(temporary)
        os.replace(temporary, path)
        synchronize(path.parent)


def synchronize(path):
    """Have the system put a file, or a folder's list of files, on the disk."""
    if os.name == "posix" or path.is_file():
        handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def damaged(where, why):
    """The RunError for a file that is not as the run left it."""
    return RunError(f"{where}: {why}. Put back a copy of it, or choose a new folder; nothing was changed.")


@contextmanager
def failing(path, act="written"):
    """Within this context, errors of the system become a RunError about `path`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RunError(f"{str(path)!r} could not be {act} ({getattr(error, 'strerror', None) or error}). All that was finished before is kept: "
                       "mend that (free some space, allow writing) and give the same command again.") from error
