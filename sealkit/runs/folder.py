"""A run's folder: opened by one run at a time, and only for the settings that it began with."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any

import filelock
from peft import LoraConfig

from .cache import Cache
from .files import RunError, corrupt_file_error, os_errors_as_run_error, write_json
from .journal import Journal
from .processes import broadcast, distributed_state, sigterm_as_run_error

DRIVE = Path("/content/drive")  # where Colab mounts Google Drive
OR_NEW_FOLDER = "or choose a new folder."


@contextmanager
def open_run(
    folder: str | Path | None,
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
    config: LoraConfig | None = None,
) -> Iterator[Cache]:
    """The Journal in `folder`, new or as it was left, locked by this run; for None, a dict.

    settings: flat dict of all that shapes the results; what is there has to be the same. machine:
    dict of what shapes their last digits, such as versions; a difference is printed.
    Raises RunError, changing nothing, for other settings, another process at work, foreign or
    damaged files.
    """
    if folder is None:
        yield {}
        return
    folder, state = Path(folder), distributed_state()
    with (
        sigterm_as_run_error(),
        lock_run_folder(folder) if state.is_main_process else nullcontext(),
    ):
        record = folder / "run.json"
        if state.is_main_process and not record.exists():
            write_json(record, {"settings": settings, "machine": machine})
        state.wait_for_everyone()
        try:
            found = json.loads(record.read_text("ascii"))
            other = describe_differences(found["settings"], json.loads(json.dumps(settings)))
            elsewhere = describe_differences(found["machine"], machine)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise corrupt_file_error(record, error) from error
        if other:
            where = f"{str(folder)!r} holds a run with other settings ({other})"
            raise RunError(f"{where}: give the same again to go on with it, {OR_NEW_FOLDER}")
        journal = Journal(folder, config, state.process_index)
        if state.is_main_process:
            with os_errors_as_run_error(folder):
                for half in folder.rglob(".*.tmp"):  # what a killed process was writing
                    half.unlink()
        state.wait_for_everyone()
        if journal and state.is_main_process:
            trials = sum(key[0] == "trial" for key in journal)
            print(f"Going on with the run in {str(folder)!r}: {trials} trials are there.")
            if elsewhere:
                print(f"It began elsewhere ({elsewhere}): from here on last digits may differ.")
        yield journal


def new_run_folder() -> Path:
    """Make the first folder runs/N that there is not yet, one for all processes of a run."""
    folder = None
    if distributed_state().is_main_process:
        for folder in (Path(f"runs/{n}") for n in count(1)):
            with os_errors_as_run_error(folder), suppress(FileExistsError):
                folder.mkdir(parents=True)
                break
    return broadcast(folder)  # type: ignore[return-value]


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Lock a run's folder, new or old, until the context or the process ends."""
    check_mounted(folder)
    with os_errors_as_run_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir() if path.suffix != ".tmp"} - {".lock"}
    where, lock = repr(str(folder)), filelock.FileLock(folder / ".lock", timeout=0)
    if names and "run.json" not in names:
        raise RunError(f"{where} holds other files and no run: move those away, {OR_NEW_FOLDER}")
    try:
        # network drives may have no locks
        with os_errors_as_run_error(folder), suppress(NotImplementedError):
            lock.acquire()
    except filelock.Timeout:
        busy = f"Another process is at work on the run in {where}"
        raise RunError(f"{busy}: wait for it, stop it, {OR_NEW_FOLDER}") from None
    try:
        yield
    finally:
        lock.release()


def check_mounted(folder: Path) -> None:
    """Raise RunError for a folder in a Google Drive that is not there: it would end with Colab."""
    path = folder.absolute()
    if DRIVE in path.parents and not (DRIVE / path.relative_to(DRIVE).parts[0]).exists():
        raise RunError(
            f"{str(folder)!r} lies in a Google Drive that is not mounted: run `from google.colab "
            f"import drive; drive.mount({str(DRIVE)!r})`, {OR_NEW_FOLDER}"
        )


def describe_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs between two flat dicts, in words; empty if nothing does."""
    pairs = {
        name: (there.get(name, "missing"), here.get(name, "missing")) for name in {**there, **here}
    }
    return "; ".join(
        f"{name} is {a} there and {b} here" for name, (a, b) in pairs.items() if a != b
    )
