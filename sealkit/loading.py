"""NF4 models for this machine: frozen 4-bit weights, ready for LoRA (QLoRA, arXiv:2305.14314)."""

import errno
import os
import platform
import socket
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

BUNDLED_MODEL = Path(__file__).parent / "bundled" / "model"
REAL_MODEL = "mistralai/Mistral-7B-v0.1"
REAL_MODEL_GIB = 14  # of GPU memory from which REAL_MODEL is chosen: a T4 has 14.7
VARIABLE = "SEALKIT_MODEL"


@dataclass(frozen=True)
class Choice:
    """What `load_quantized` takes on this machine, and why."""

    path: str | Path  # folder or hub id
    device: torch.device
    dtype: torch.dtype  # of activations and of what is not held in 4 bits
    model_reason: str
    dtype_reason: str


def choose(name=None, device=None):
    """The one place that decides on model, device and compute dtype for `name` and `device` as
    `load_quantized` takes them: Choice.

    A T4 says that it supports bfloat16, which it emulates, so what decides is the compute
    capability.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype, why = torch.float32, "which is exact and fast enough on a CPU"
    reason = "because there is no GPU to carry a larger one"
    memory = 0
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        reason = f"because this GPU has {memory:.1f} GiB, and {'at least' if memory >= REAL_MODEL_GIB else 'less than'} {REAL_MODEL_GIB}"
        if capability >= (8, 0):
            dtype, why = torch.bfloat16, "which this GPU has in hardware"
        else:
            dtype, why = (
                torch.float16,
                f"because bfloat16 needs compute capability 8.0 and this GPU has {capability[0]}.{capability[1]}",
            )
    if name:
        reason = "because it was asked for"
    elif name := os.environ.get(VARIABLE):
        reason = f"because the environment variable {VARIABLE} says so"
    else:
        name = REAL_MODEL if memory >= REAL_MODEL_GIB else "bundled"
    return Choice(BUNDLED_MODEL if name == "bundled" else name, device, dtype, reason, why)


def environment(name=None, device=None):
    """Versions, device and chosen model, each with the reason: three lines of text."""
    choice = choose(name, device)
    versions = ", ".join(
        f"{package} {version(package)}"
        for package in ("torch", "transformers", "peft", "bitsandbytes")
    )
    where = (
        torch.cuda.get_device_name(choice.device)
        if choice.device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    why = f"compute in {str(choice.dtype).removeprefix('torch.')}, {choice.dtype_reason}"
    path = "bundled, a Mistral of 3.3 M parameters" if choice.path == BUNDLED_MODEL else choice.path
    return f"Python {platform.python_version()}, {versions}\nDevice: {where}; {why}\nModel: {path}, {choice.model_reason}"


def load_quantized(name=None, device=None):
    """A causal LM held in 4 bits (NF4, double quantization), and its tokenizer.

    name: "bundled" for the tiny Mistral that ships with sealkit; or a folder, or a model hub's id;
        None for what the environment variable SEALKIT_MODEL names, else Mistral-7B-v0.1 on a GPU of
        14 GiB or more, else the bundled one.
    device: a torch device; None for CUDA where there is one, else the CPU. Every linear layer of
    the decoder becomes bitsandbytes' `Linear4bit`, frozen; embeddings, norms and the output head
    stay as they are. Compute is fp32 on a CPU, bf16 on GPUs that have it, else fp16. `environment`
    says what is chosen and why. The model's own decoding defaults are dropped: a repetition penalty
    would change greedy answers.
    Returns (model, tokenizer), the model in eval mode. Raises ValueError for a model that there is
    not or that nobody let us have, RuntimeError for what the machine lacks, each naming the remedy.
    """
    choice = choose(name, device)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=choice.dtype,
    )
    if choice.path == BUNDLED_MODEL:
        transformers_logging.disable_progress_bar()
    options = {
        "trust_remote_code": False
    }  # unsaid, transformers asks whether to run a checkpoint's code, and a y would
    if not Path(choice.path).is_dir() and not reachable(constants.ENDPOINT):
        options["local_files_only"] = True
    try:
        tokenizer = AutoTokenizer.from_pretrained(choice.path, **options)
        model = AutoModelForCausalLM.from_pretrained(  # sdpa: the packed sequences' mask is boolean, which eager attention would add up
            choice.path,
            quantization_config=quantization,
            dtype=choice.dtype,
            device_map={"": choice.device},
            attn_implementation="sdpa",
            use_safetensors=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise explain(error, choice) from error
    finally:
        transformers_logging.enable_progress_bar()
    keep_trainable_on_cpu(model)
    if tokenizer.eos_token is None:
        raise ValueError(
            f"The tokenizer of {str(choice.path)!r} has no end token, so no text of it would end: choose another model."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    model.requires_grad_(False)
    return model.eval(), tokenizer


def reachable(address, seconds=5):
    """Whether the server of a URL takes a connection; True behind a proxy, where only an attempt
    can tell.

    Without a network the hub's client tries every file six times, about 45 s in all, before it says
    so.
    """
    url = urlsplit(address)
    if getproxies():
        return True
    try:
        socket.create_connection(
            (url.hostname, url.port or (80 if url.scheme == "http" else 443)), seconds
        ).close()
    except OSError:
        return False
    return True


def explain(error, choice):
    """One sentence with the remedy for an exception of loading: ValueError about the model,
    RuntimeError about the machine."""
    chain = [error]
    while (
        cause := chain[-1].__cause__
        or (None if chain[-1].__suppress_context__ else chain[-1].__context__)
    ) and cause not in chain:
        chain.append(cause)
    text, name = " ".join(map(str, chain)), repr(str(choice.path))

    def among(*types):
        return any(isinstance(link, types) for link in chain)

    token = (
        "with your token"
        if get_token()
        else "without a token: make one at https://huggingface.co/settings/tokens and put it into HF_TOKEN"
    )
    if (
        any(getattr(link, "errno", None) == errno.ENOSPC for link in chain)
        or "No space left" in text
    ):
        return RuntimeError(
            f"The disk is full, so {name} could not be stored ({REAL_MODEL} takes 15 GB): free some space, or set "
            f"HF_HOME to a folder on a larger disk."
        )
    if among(torch.cuda.OutOfMemoryError):
        return RuntimeError(
            f"This GPU's memory is too small for {name} in 4 bits: take a smaller model, for example {VARIABLE}=bundled, "
            "or free the GPU of other programs."
        )
    if among(GatedRepoError):
        return ValueError(
            f"{name} is gated and was asked for {token}; its terms have to be accepted once at https://huggingface.co/{choice.path}."
        )
    if among(RepositoryNotFoundError, LocalTokenNotFoundError):
        return ValueError(
            f"The hub has no public model {name}, and it was asked for {token}: check the spelling, or that you may see it."
        )
    if (
        among(LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError)
        or "couldn't connect to" in text
    ):
        return RuntimeError(
            f"{constants.ENDPOINT} cannot be reached and {name} is not in the local cache: connect to the network, "
            "or give 'bundled' or the folder of a model."
        )
    if not isinstance(error, (OSError, ValueError)):
        if "bitsandbytes" not in text.lower():
            return error
        return RuntimeError(
            f"bitsandbytes {version('bitsandbytes')} does not work with this torch {torch.__version__} (CUDA "
            f"{torch.version.cuda or 'none'}): pip install -U bitsandbytes; python -m bitsandbytes tells more."
        )
    return ValueError(
        f"No model could be loaded from {name} ({(str(error).splitlines() or [type(error).__name__])[0]}): "
        "give 'bundled', a folder with config.json and safetensors, or the id of a public model."
    )


def keep_trainable_on_cpu(model):
    """Keep bitsandbytes from repacking 4-bit layers for inference on CPUs with AVX512-BF16.

    The first forward without gradients would repack each `Linear4bit` in place, and from then on
    every gradient below that layer would be exactly zero, with no error (bitsandbytes 0.50,
    `Linear4bit.forward`).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def weight_bytes(model):
    """Bytes of the model's weights as held now, and as they would be in 16 bits: (int, int).

    Counts packed 4-bit values with their scales and double-quantization tables, embeddings, norms
    and head.
    """
    held = plain = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        held += parameter.numel() * parameter.element_size()
        plain += 2 * (parameter.numel() if state is None else state.shape.numel())
        if state is not None:
            tables = [state.absmax, state.code] + (
                [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
            )
            held += sum(t.numel() * t.element_size() for t in tables)
    return held, plain
