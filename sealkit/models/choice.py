"""Which model, device and dtypes are taken on this machine, each with its reason."""

import ctypes
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from .smollm2 import FOLDER

BUNDLED_MODEL, PUZZLE_MODEL = (
    Path(__file__).parents[1] / "bundled" / name for name in ("model", "puzzle_model")
)
BUNDLED = {"bundled": (BUNDLED_MODEL, "1.0 M"), "puzzles": (PUZZLE_MODEL, "0.8 M")}
SMOLLM2 = "smollm2"
REAL_MODEL = "mistralai/Mistral-7B-v0.1"
REAL_MODEL_GIB = 14  # of GPU memory from which `environment` offers REAL_MODEL: a T4 has 14.7
MODEL_VARIABLE = "SEALKIT_MODEL"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # in malloc.h
CPU_BF16 = "avx512_bf16"  # what a CPU has to have for `choose` to take bfloat16
DEFAULT_THREADS = torch.get_num_threads()  # as many as torch takes by itself


@dataclass(frozen=True)
class Choice:
    """What `load_quantized` takes on this machine, and why."""

    path: str | Path  # folder, GGUF file or hub id
    device: torch.device
    dtype: torch.dtype  # of activations and of what is not held in 4 bits
    products: torch.dtype  # of the products with 4-bit weights
    threads: int
    model_reason: str
    dtype_reason: str
    threads_reason: str

    @property
    def bundled(self) -> bool:
        """Whether it is one of the models that ship with sealkit."""
        return any(self.path == path for path, _ in BUNDLED.values())


def model_name(name: str | Path | None = None) -> str | Path:
    """The model's name: as given, else as SEALKIT_MODEL says, else "bundled"."""
    return name or os.environ.get(MODEL_VARIABLE) or "bundled"


def default_device(bundled: bool) -> str:
    """Where a model goes if no device is named: to the CPU if it is bundled or there is no GPU."""
    if bundled or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # each process of torchrun has its own


def choose(name: str | Path | None = None, device: torch.device | str | None = None) -> Choice:
    """The one place that decides on model, device, compute dtypes and threads: Choice.

    On a CPU a second thread gains a bundled model little, and where others want the cores both
    wait for each other (`tests/benchmarks/load.py`).
    """
    reason = "because it was asked for"
    if not name:
        named = os.environ.get(MODEL_VARIABLE)
        reason = f"because {MODEL_VARIABLE} {'says so' if named else 'names no other'}"
    name = model_name(name)
    device = torch.device(device or default_device(name in BUNDLED))
    dtype, products, why = choose_dtypes(device, name in {*BUNDLED, SMOLLM2})
    path = BUNDLED[str(name)][0] if name in BUNDLED else FOLDER if name == SMOLLM2 else name
    threads, because = DEFAULT_THREADS, "all that torch takes"
    if "OMP_NUM_THREADS" in os.environ:
        threads, because = torch.get_num_threads(), "because OMP_NUM_THREADS says so"
    elif name in BUNDLED:
        threads, because = 1, "since a second gains so small a model little"
    return Choice(path, device, dtype, products, threads, reason, why, because)


def choose_dtypes(device: torch.device, measured: bool) -> tuple[torch.dtype, torch.dtype, str]:
    """(dtype of activations, dtype of products with 4-bit weights, why).

    A T4 says that it supports bfloat16, which it emulates, so what decides is compute capability.
    On a CPU products take half the time or less in bfloat16 where the CPU has it. How little that
    changes the rewards of a model was `measured` (`tests/benchmarks/README.md`), or nobody knows.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            why = f"because this GPU ({major}.{minor}) has no bfloat16, 8.0 has"
            return torch.float16, torch.float16, why
        return torch.bfloat16, torch.bfloat16, "which this GPU has in hardware"
    # torch has `get_capabilities` since 2.11
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if measured and capabilities.get(CPU_BF16):
        why = "4-bit products in bfloat16, which this CPU has in hardware"
        return torch.float32, torch.bfloat16, why
    return torch.float32, torch.float32, "which is exact and fast enough on a CPU"


def environment(name: str | Path | None = None, device: torch.device | str | None = None) -> str:
    """Versions, device and chosen model, each with the reason: three lines of text.

    A fourth tells how to take Mistral-7B, and at what cost, where nobody chose a model and the GPU
    could carry it. (Its minutes nobody has measured: `estimate_run` says them before a run.)

    >>> print(environment("bundled", "cpu").splitlines()[2])
    Model: bundled, a Mistral of 1.0 M weights, because it was asked for
    """
    choice = choose(name, device)
    packages = ("torch", "transformers", "peft", "bitsandbytes")
    where = f"CPU, threads: {choice.threads}, {choice.threads_reason}"
    if choice.device.type == "cuda":
        where = torch.cuda.get_device_name(choice.device)
    elif choice.bundled and not device and torch.cuda.is_available():
        where = (
            f"{where} (a model so small stays off the GPU unless a device is named: "
            "on a GPU it has not been measured)"
        )
    memory = 0.0
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(choice.device.index or 0).total_memory / 2**30
    model = "smollm2, a Llama of 135 M weights" if choice.path == FOLDER else str(choice.path)
    for known, (folder, size) in BUNDLED.items():
        if choice.path == folder:
            model = f"{known}, a Mistral of {size} weights"
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    dtype = str(choice.dtype).removeprefix("torch.")
    text = (
        f"Python {platform.python_version()}, {versions}\n"
        f"Device: {where}; compute in {dtype}, {choice.dtype_reason}\n"
        f"Model: {model}, {choice.model_reason}"
    )
    if memory >= REAL_MODEL_GIB and not (name or os.environ.get(MODEL_VARIABLE)):
        text += (
            f"\nThis GPU's {memory:.1f} GiB could carry Mistral-7B (15 GB to download; 9 GiB at "
            "work, computed; its minutes are estimated, from a pass, before a run begins): "
            f"name {REAL_MODEL!r}, or set {MODEL_VARIABLE} to it"
        )
    return text


def set_process_options(choice: Choice) -> None:
    """Set what holds for the whole process: threads, and how many kernels oneDNN keeps."""
    torch.set_num_threads(choice.threads)
    if choice.device.type == "cpu" and not choice.bundled:
        keep_freed_memory()
    if choice.products != choice.dtype:  # one for each length of a row: 1,024 are 0.1 GB and more
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one, which else takes it anew page by page.
    Elsewhere nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
