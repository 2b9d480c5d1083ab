"""The journal: a dict whose entries are on the disk, a JSON line each, weights as PEFT adapters.

Only its last line can be half written, when a process is killed; it is cut off on resuming.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .cache import Key
from .files import (
    corrupt_file_error,
    fsync_folder,
    os_errors_as_run_error,
    write_atomically,
    write_json,
)

ADAPTER = "adapter_model.safetensors"


class Journal(dict[Key, Any]):
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

    def __init__(self, folder: str | Path, config: LoraConfig | None = None, rank: int = 0) -> None:
        self.folder, self.config, self.size = Path(folder), config, 0
        self.path = self.folder / (f"journal-{rank}.jsonl" if rank else "journal.jsonl")
        for path in sorted(self.folder.glob("journal*.jsonl")):
            with os_errors_as_run_error(path, "read"):
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
                    raise corrupt_file_error(
                        f"{path}, line {number}", f"no record ({error!r})"
                    ) from error
                if isinstance(value, dict) and "weights" in value:
                    value = value | {"weights": self.read(key, value)}
                self[key] = value

    def update(self, rows: Mapping[Key, Any]) -> None:  # type: ignore[override]
        """Store results; if it raises RunError, none of them is in the journal."""
        lines = b""
        for key, value in rows.items():
            if isinstance(value, dict) and "weights" in value:
                value = value | {"weights": self.write(key, value["weights"])}
            row = {"key": key, "value": value, "crc": checksum(key, value)}
            lines += json.dumps(row).encode("ascii") + b"\n"  # a self-edit may hold terminal codes
        with os_errors_as_run_error(self.path), open(self.path, "ab", buffering=0) as file:
            file.truncate(self.size)
            try:
                written = 0
                while written < len(lines):
                    written += file.write(lines[written:])
                os.fsync(file.fileno())
                if not self.size:
                    fsync_folder(self.folder)
            except BaseException:
                file.truncate(self.size)
                raise
        self.size += len(lines)
        super().update(rows)

    def write(self, key: Key, weights: Mapping[str, Tensor]) -> str:
        """Save LoRA tensors as a stock PEFT adapter, such as `policy_1/`; returns its SHA-256."""
        folder = self.folder / "_".join(map(str, key))
        data = save({name: tensor.contiguous() for name, tensor in weights.items()})
        with os_errors_as_run_error(folder):
            folder.mkdir(exist_ok=True)
            fsync_folder(self.folder)
            write_atomically(folder / ADAPTER, data)
        described = self.config.to_dict() if self.config else {}
        write_json(folder / "adapter_config.json", described | {"inference_mode": True})
        return hashlib.sha256(data).hexdigest()

    def read(self, key: Key, value: Mapping[str, Any]) -> dict[str, Tensor]:
        """The LoRA tensors that `write` saved."""
        path = self.folder / "_".join(map(str, key)) / ADAPTER
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != value["weights"]:
                raise ValueError("its bytes have changed since it was saved")
            return load(data)
        except (OSError, ValueError, SafetensorError) as error:
            raise corrupt_file_error(path, error) from error


def checksum(key: object, value: object) -> int:
    """CRC-32 of an entry as JSON, which detects a damaged line."""
    return zlib.crc32(json.dumps([key, value]).encode("ascii"))
