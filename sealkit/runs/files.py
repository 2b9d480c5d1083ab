"""What is done need not be done again: results by key, in a dict or in a folder that outlives it.

A run's folder is never half of anything but its journal's last line; that is cut off on resuming.
"""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import filelock


class RunError(Exception):
    """What keeps a run from going on, such as a file or another run; it says what to do.

    >>> raise RunError("'runs/1' could not be written")
    Traceback (most recent call last):
    sealkit.runs.files.RunError: 'runs/1' could not be written
    """


def write_json(path, value):
    """Write JSON to a file, see `write_text`; a set becomes a sorted list."""
    write_text(path, json.dumps(value, indent=1, default=sorted) + "\n")


def write_text(path, text):
    """Write a text to a file, see `write_atomically`. Raises RunError."""
    with os_errors_as_run_error(path):
        write_atomically(path, text.encode("utf-8", "replace"))


def write_atomically(path, data):
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


def fsync_folder(folder):
    """Have the system put a folder's list of files on the disk; only POSIX opens folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def corrupt_file_error(where, why):
    """The RunError for a file that is not as the run left it."""
    return RunError(
        f"{where}: {why}. Put back a copy, or choose a new folder; nothing was changed."
    )


@contextmanager
def os_errors_as_run_error(path, act="written"):
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
