"""NF4 models for this machine: frozen 4-bit weights, ready for LoRA (QLoRA, arXiv:2305.14314)."""

import os
import platform
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from socket import gaierror

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from huggingface_hub import constants, errors, model_info
from torch.nn.functional import linear
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)
from transformers.utils import logging as transformers_logging

from .checks import Unfit, check_layers, check_packing, check_tokens, to_4_bits, without_dropout

BUNDLED_MODEL, PUZZLE_MODEL = (
    Path(__file__).parent / "bundled" / name for name in ("model", "puzzle_model")
)
BUNDLED = {"bundled": (BUNDLED_MODEL, "1.0 M"), "puzzles": (PUZZLE_MODEL, "0.8 M")}
REAL_MODEL = "mistralai/Mistral-7B-v0.1"
REAL_MODEL_GIB = 14  # of GPU memory from which `environment` offers REAL_MODEL: a T4 has 14.7
VARIABLE = "SEALKIT_MODEL"
SMALL = 100e6  # weights of a model that `unpacked` unpacks: 0.4 GB
BF16 = "avx512_bf16"  # what a CPU has to have for `choose` to take bfloat16
THREADS = torch.get_num_threads()  # as many as torch takes by itself


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
    def bundled(self):
        """Whether it is one of the models that ship with sealkit."""
        return any(self.path == path for path, _ in BUNDLED.values())


def named(name=None):
    """The model's name: as given, else as SEALKIT_MODEL says, else "bundled"."""
    return name or os.environ.get(VARIABLE) or "bundled"


def choose(name=None, device=None):
    """The one place that decides on model, device, compute dtypes and threads: Choice.

    On a CPU a second thread gains a bundled model little, and where others want the cores both
    wait for each other (`tests/benchmarks/load.py`).
    """
    gpu = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # each process of torchrun has its own
    device = torch.device(device or (gpu if torch.cuda.is_available() else "cpu"))
    reason = "because it was asked for"
    if not name:
        said = os.environ.get(VARIABLE)
        reason = f"because {VARIABLE} {'says so' if said else 'names no other'}"
    name = named(name)
    dtype, products, why = dtypes(device, name in BUNDLED)
    path = BUNDLED.get(name, (name, ""))[0]
    threads, because = THREADS, "all that torch takes"
    if "OMP_NUM_THREADS" in os.environ:
        threads, because = torch.get_num_threads(), "because OMP_NUM_THREADS says so"
    elif name in BUNDLED:
        threads, because = 1, "since a second gains so small a model little"
    return Choice(path, device, dtype, products, threads, reason, why, because)


def dtypes(device, bundled):
    """(dtype of activations, dtype of products with 4-bit weights, why).

    A T4 says that it supports bfloat16, which it emulates, so what decides is compute capability.
    On a CPU a bundled model's products take a third of the time in bfloat16 where the CPU has it,
    and rewards stay the same (`tests/benchmarks/README.md`); of other models nobody knows that.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            why = f"because this GPU ({major}.{minor}) has no bfloat16, 8.0 has"
            return torch.float16, torch.float16, why
        return torch.bfloat16, torch.bfloat16, "which this GPU has in hardware"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.11
    if bundled and capabilities.get(BF16):
        why = "4-bit products in bfloat16, which this CPU has in hardware"
        return torch.float32, torch.bfloat16, why
    return torch.float32, torch.float32, "which is exact and fast enough on a CPU"


def environment(name=None, device=None):
    """Versions, device and chosen model, each with the reason: three lines of text.

    A fourth tells how to take Mistral-7B, and at what cost, where nobody chose a model and the GPU
    could carry it. (Its minutes nobody has measured: `estimate_run` says them before a run.)

    >>> print(environment("bundled", "cpu").splitlines()[2])
    Model: bundled, a Mistral of 1.0 M weights, because it was asked for
    """
    choice, memory = choose(name, device), 0
    packages = ("torch", "transformers", "peft", "bitsandbytes")
    where = f"CPU, threads: {choice.threads}, {choice.threads_reason}"
    if choice.device.type == "cuda":
        where = torch.cuda.get_device_name(choice.device)
        memory = torch.cuda.get_device_properties(choice.device).total_memory / 2**30
    sizes = {own: f"{known}, a Mistral of {size} weights" for known, (own, size) in BUNDLED.items()}
    path = sizes.get(choice.path, choice.path)
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    dtype = str(choice.dtype).removeprefix("torch.")
    text = (
        f"Python {platform.python_version()}, {versions}\n"
        f"Device: {where}; compute in {dtype}, {choice.dtype_reason}\n"
        f"Model: {path}, {choice.model_reason}"
    )
    if memory >= REAL_MODEL_GIB and not (name or os.environ.get(VARIABLE)):
        text += (
            f"\nThis GPU's {memory:.1f} GiB could carry Mistral-7B (15 GB to download; 9 GiB at "
            "work, computed; its minutes are estimated, from a pass, before a run begins): "
            f"name {REAL_MODEL!r}, or set {VARIABLE} to it"
        )
    return text


def load_quantized(name=None, device=None):
    """A causal LM held in 4 bits (NF4, double quantization), and its tokenizer.

    name: "bundled" or "puzzles" for a tiny Mistral that ships with sealkit; or a folder, a hub's id
        or a GGUF file (unpacked in memory first; needs the package gguf); None for what the
        environment variable SEALKIT_MODEL names, else "bundled". The hub's cache needs no network.
    device: a torch device; None for CUDA where there is one, else the CPU.
    Every linear layer of the decoder becomes bitsandbytes' `Linear4bit`, frozen; the rest stays as
    it is. Compute is fp32 on a CPU, a bundled model's 4-bit products in bf16 if the CPU has that,
    bf16 on GPUs that have it, else fp16. Dropout is off, and so are a model's own decoding rules.
    Returns (model, tokenizer), in eval mode. Raises ValueError for a model that there is not, or
    that can't do what the loops need (see `checks`), RuntimeError for what the machine lacks.

    >>> model, tokenizer = load_quantized("bundled", "cpu")
    >>> model.model.layers[0].mlp.up_proj, model.model.layers[0].mlp.up_proj.weight.nbytes
    (Linear4bit(in_features=128, out_features=384, bias=False), 24576)
    """
    choice = choose(name, device)
    prepare(choice)
    quiet = choice.bundled and transformers_logging.is_progress_bar_enabled()
    if quiet:
        transformers_logging.disable_progress_bar()
    try:
        model, tokenizer = fetch(choice)
        to_4_bits(model)
        set_products(model, choice.dtype)
        keep_trainable_on_cpu(model)
        check_layers(model)
        without_dropout(model.requires_grad_(False).eval())
        check_tokens(model, tokenizer)
        check_packing(model)  # in exact products
        set_products(model, choice.products)
    except Exception as error:
        raise explain(error, choice) from error
    finally:
        if quiet:
            transformers_logging.enable_progress_bar()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(**ends)
    return model, tokenizer


def prepare(choice):
    """Set what holds for the whole process: threads, and how many kernels oneDNN keeps."""
    torch.set_num_threads(choice.threads)
    if choice.products != choice.dtype:  # one for each length of a row: 1,024 are 0.1 GB and more
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def fetch(choice):
    """(model, tokenizer) from a folder or the hub's cache, else from the network."""
    try:
        return read(choice, local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(choice.path).exists() or isinstance(error, Unfit):
            raise
    model_info(choice.path, timeout=5)  # says at once what reading would after many attempts
    return read(choice)


def read(choice, **options):
    """(model, tokenizer) as transformers reads them; no weights of what 4 bits can't hold."""
    folder = choice.path
    plan = {"dtype": choice.dtype, "device_map": {"": choice.device}, "adapter_kwargs": options}
    options = options | {
        "trust_remote_code": False
    }  # unsaid, transformers asks, and a y would run it
    if (path := Path(folder)).suffix == ".gguf" and path.is_file():
        folder, options = path.parent, options | {"gguf_file": path.name}
    else:
        with torch.device("meta"):
            config = AutoConfig.from_pretrained(folder, **options)
            check_layers(AutoModelForCausalLM.from_config(config, trust_remote_code=False))
        nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": choice.dtype}
        nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True, **nf4)
        plan |= {"quantization_config": nf4, "use_safetensors": True}
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    return AutoModelForCausalLM.from_pretrained(folder, **options, **plan), tokenizer


def keep_trainable_on_cpu(model):
    """Keep bitsandbytes from repacking 4-bit layers for inference on CPUs with AVX512-BF16.

    The first forward without gradients would repack each `Linear4bit` in place, and from then on
    every gradient below that layer would be exactly zero, with no error (bitsandbytes 0.50).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def four_bit(model):
    """The layers of a model that are held in 4 bits, in its order."""
    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def set_products(model, dtype):
    """Have all 4-bit layers multiply in this dtype, not in that of whoever saved a checkpoint."""
    for layer in four_bit(model):
        layer.compute_dtype = dtype


@contextmanager
def unpacked(model):
    """Within this context a small model's 4-bit weights are unpacked once, not for each product.

    On a CPU, with up to SMALL weights: a tenth faster to the same bits, for 2 or 4 bytes a weight.
    """
    layers = four_bit(model)
    if model.device.type != "cpu" or sum(m.in_features * m.out_features for m in layers) > SMALL:
        layers = []
    for layer in layers:
        weight = dequantize_4bit(layer.weight, layer.weight.quant_state).to(layer.compute_dtype)
        layer.forward = partial(product, weight=weight, bias=layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def product(x, weight, bias):
    """W x + b in the dtype of the weight, given back in that of x, as `Linear4bit` does."""
    bias = bias if bias is None else bias.to(weight.dtype)
    return linear(x.to(weight.dtype), weight, bias).to(x.dtype)


def explain(error, choice):
    """One sentence with the remedy for what the libraries say in many, or in none.

    ValueError about the model, RuntimeError about the machine; any other error stays as it is.
    """
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    name, text, hub = repr(str(choice.path)), " ".join(map(str, chain)), constants.ENDPOINT
    unreachable = (errors.LocalEntryNotFoundError, ConnectionError, TimeoutError, gaierror)
    of_model = {
        Unfit: f"{name} {error}",
        errors.GatedRepoError: f"{name} is gated: accept its terms at {hub}/{choice.path}, and put "
        "the token of that account into HF_TOKEN.",
        errors.RepositoryNotFoundError: f"The hub has no public model {name}: check the spelling, "
        "or put the token of an account that may see it into HF_TOKEN.",
    }
    of_machine = {
        "No space left": f"The disk is full: free some for {name}, or set HF_HOME to a larger one.",
        "bitsandbytes native": f"bitsandbytes {version('bitsandbytes')} does not work with torch "
        f"{torch.__version__}: pip install -U bitsandbytes; python -m bitsandbytes tells more.",
        torch.OutOfMemoryError: f"{name} in 4 bits does not fit this GPU: free it of other "
        f"programs, or take a smaller model, for example {VARIABLE}=bundled.",
        unreachable: f"{hub} can't be reached and {name} is not in the local cache: connect to the "
        "network, or take 'bundled'.",
    }
    for kind, sentences in ((ValueError, of_model), (RuntimeError, of_machine)):
        for sign, sentence in sentences.items():
            if sign in text if isinstance(sign, str) else any(isinstance(e, sign) for e in chain):
                return kind(sentence)
    reason = re.split(r"\n|\. ", str(error) or repr(error))[0]
    if isinstance(error, ImportError):
        return RuntimeError(f"{name} can't be loaded: {reason}")
    if isinstance(error, (OSError, ValueError)):
        reason += (
            "): give 'bundled', or a folder or hub id with config.json and safetensors; of an "
        )
        reason += "adapter, load the base model, then PeftModel.from_pretrained(model, adapter)."
        return ValueError(f"No model could be loaded from {name} ({reason}")
    return error


def weight_bytes(model):
    """Bytes of the model's weights as held now, and as they would be in 16 bits: (int, int).

    Counts packed 4-bit values with their scales and double-quantization tables, embeddings, norms
    and head.

    >>> held, plain = weight_bytes(load_quantized("bundled", "cpu")[0])
    >>> held < plain
    True
    """
    held = plain = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        held += parameter.nbytes
        plain += 2 * (parameter.numel() if state is None else state.shape.numel())
        if state is not None:
            tables = [state.absmax, state.code]
            tables += [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
            held += sum(table.nbytes for table in tables)
    return held, plain
