"""What is on the disk is there as a whole."""

import os
import shutil
from pathlib import Path
from uuid import uuid4


def write_whole(path, data):
    """Write bytes to a file, all or none: whatever stops it, the file holds `data` or still what it held before.

    Raises OSError (no such folder, disk full, ...); what was there is untouched then. A link's target is written.
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
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
