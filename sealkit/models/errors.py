"""What the libraries raise while a model is loaded, as one sentence with its remedy."""

import json
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, errors, try_to_load_from_cache
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from ..runs.errors import chain_of, explain, reason_of
from ..runs.files import RunError
from .choice import MODEL_VARIABLE, Choice

DAMAGED = "{} is damaged or not whole ({}): delete it, and download or copy it again."
TOKEN = (
    f"{constants.ENDPOINT} does not accept the token in HF_TOKEN: copy one from "
    f"{constants.ENDPOINT}/settings/tokens, or unset HF_TOKEN where the model is open."
)


class UnsupportedModelError(ValueError):
    """The model can't do what the loops need; the message goes on after the model's name."""


def check_keys(info: Mapping[str, Collection]) -> None:
    """Raise UnsupportedModelError if a checkpoint and its model do not have the same weights.

    info: `output_loading_info` of transformers, which would draw at random what is missing, or of
    another shape, and leave out what it does not expect.
    """
    says = {
        "missing_keys": "lacks",
        "mismatched_keys": "has in other shapes than its config.json",
        "unexpected_keys": "has, unlike its config.json,",
    }
    for kind, verb in says.items():
        if found := sorted(key if isinstance(key, str) else key[0] for key in info[kind]):
            names = ", ".join(found[:3]) + ", ..." * (len(found) > 3)
            raise UnsupportedModelError(
                f"{verb} {len(found)} of the weights ({names}): take the checkpoint as its makers "
                "saved it, with its own config.json."
            )


def check_place(place: str | Path) -> None:
    """Raise UnsupportedModelError for what is neither a folder, a GGUF file nor a hub id."""
    path = Path(place)
    try:
        validate_repo_id(str(place))
        named = path.suffix in (".gguf", ".safetensors", ".bin", ".json")
    except errors.HFValidationError:
        named = True
    kinds = (
        "give 'bundled', or a folder or hub id with config.json and safetensors, or a .gguf file."
    )
    if path.is_file() and path.suffix != ".gguf":
        raise UnsupportedModelError(f"is a file: {kinds}")
    if named and not path.exists():
        raise UnsupportedModelError(f"does not exist here: check the spelling, {kinds}")


def explain_loading_error(error: Exception, choice: Choice) -> Exception:
    """One sentence with the remedy for what the libraries say in many, or in none.

    ValueError about the model, RunError about the machine; any other error stays as it is.
    """
    if isinstance(error, RunError):
        return error
    chain = chain_of(error)
    name, text, hub = repr(str(choice.path)), " ".join(map(str, chain)), constants.ENDPOINT
    of_model: dict[Any, str] = {
        UnsupportedModelError: f"{name} {error}",
        "Invalid credentials": TOKEN,
        "Invalid user token": TOKEN,
        errors.GatedRepoError: f"{name} is gated: accept its terms at {hub}/{choice.path}, and put "
        "the token of that account into HF_TOKEN (in Colab a secret, see notebook 4).",
        errors.RepositoryNotFoundError: f"The hub has no public model {name}: check the spelling, "
        "or put the token of an account that may see it into HF_TOKEN.",
    }
    of_machine: dict[Any, str] = {
        "bitsandbytes native": f"bitsandbytes {version('bitsandbytes')} does not work with torch "
        f"{torch.__version__}: pip install -U bitsandbytes; python -m bitsandbytes tells more.",
        torch.OutOfMemoryError: f"{name} in 4 bits does not fit this GPU: free it of other "
        f"programs, or take a smaller model, for example {MODEL_VARIABLE}=bundled.",
    }
    for kind, sentences in ((ValueError, of_model), (RunError, of_machine)):
        for sign, sentence in sentences.items():
            if sign in text if isinstance(sign, str) else any(isinstance(e, sign) for e in chain):
                return kind(sentence)
    if damage := damage_in(choice.path):
        return ValueError(f"{name} can't be loaded: {damage}")
    missing = f"{name} is neither a folder here nor in the local cache"
    if explained := explain(error, missing, "take 'bundled'"):
        return RunError(explained)
    if isinstance(error, ImportError):
        return RunError(f"{name} can't be loaded: {reason_of(error)}")
    if isinstance(error, RuntimeError):
        return error
    if Path(choice.path).suffix == ".gguf":
        return ValueError(DAMAGED.format(name, reason_of(error)))
    return ValueError(
        f"No model could be loaded from {name} ({reason_of(error)}): give 'bundled', or a folder "
        "or hub id with config.json and safetensors; of an adapter, load the base model, then "
        "PeftModel.from_pretrained(model, adapter)."
    )


def damage_in(place: str | Path) -> str | None:
    """The first file of a checkpoint that can't be read, and the remedy; None if there is none.

    place: a folder, a GGUF file or a hub id, which the cache may hold.
    """
    cached = None if Path(place).exists() else try_to_load_from_cache(str(place), "config.json")
    folder = Path(cached).parent if isinstance(cached, str) else Path(place)
    kinds = "*.safetensors", "*.json", "*.gguf"
    files = sorted(f for kind in kinds for f in folder.glob(kind)) if folder.is_dir() else [folder]
    for path in files if folder.exists() else ():
        try:
            start = path.read_bytes() if path.suffix == ".json" else path.open("rb").read(64)
            if start.startswith(b"version https://git-lfs"):
                return f"{str(path)!r} only points to a file of Git LFS: run `git lfs pull` there."
            if path.suffix == ".json":
                json.loads(start)
            elif path.suffix == ".safetensors":
                safe_open(path, "pt")
            elif not start.startswith(b"GGUF"):
                raise ValueError("it does not begin as GGUF files do")
        except PermissionError:
            return f"you may not read {str(path)!r}: have its owner allow it."
        except (OSError, ValueError, SafetensorError) as error:
            why = "it is empty" if path.is_file() and not path.stat().st_size else reason_of(error)
            return DAMAGED.format(repr(str(path.resolve())), why)
    return None
