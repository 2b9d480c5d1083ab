"""Files that are written whole or not at all, and the errors of a run's folder in one sentence."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import filelock

from .errors import reason_of


class RunError(RuntimeError):
    """What keeps a run from going on, such as a file, another run or what a machine lacks; it says
    what to do.

    >>> raise RunError("'runs/1' could not be written")
    Traceback (most recent call last):
    sealkit.runs.files.RunError: 'runs/1' could not be written
    """


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON to a file, see `write_text`; a set becomes a sorted list."""
    write_text(path, json.dumps(value, indent=1, default=sorted) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text to a file, see `write_atomically`. Raises RunError."""
    with os_errors_as_run_error(path):
        write_atomically(path, text.encode("utf-8", "replace"))


def write_atomically(path: str | Path, data: bytes) -> None:
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
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's list of files to the disk; only POSIX can open folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def corrupt_file_error(where: object, why: object) -> RunError:
    """The RunError for a file that is not as the run left it, or that this user may not read."""
    if isinstance(why, PermissionError):
        return RunError(f"You may not read {where}: have its owner allow it; nothing was changed.")
    why = reason_of(why) if isinstance(why, Exception) else why
    return RunError(
        f"{where}: {why}. Put back a copy, or choose a new folder; nothing was changed."
    )


@contextmanager
def os_errors_as_run_error(path: object, act: str = "written") -> Iterator[None]:
    """Within this context, the operating system's errors become a RunError about `path`."""
    try:
        yield
    except filelock.Timeout:
        raise
    except OSError as error:
        raise RunError(
            f"{str(path)!r} could not be {act} ({error.strerror or error}). All that was finished "
            "before is kept: mend that (free some space, allow writing) and give the command again."
        ) from error
