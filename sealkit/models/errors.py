"""What the libraries raise while a model is loaded, as one sentence with its remedy."""

import re
from collections.abc import Collection, Mapping
from importlib.metadata import version
from socket import gaierror
from typing import Any

import torch
from huggingface_hub import constants, errors

from .choice import MODEL_VARIABLE, Choice


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


def explain_loading_error(error: Exception, choice: Choice) -> Exception:
    """One sentence with the remedy for what the libraries say in many, or in none.

    ValueError about the model, RuntimeError about the machine; any other error stays as it is.
    """
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    name, text, hub = repr(str(choice.path)), " ".join(map(str, chain)), constants.ENDPOINT
    unreachable = (errors.LocalEntryNotFoundError, ConnectionError, TimeoutError, gaierror)
    of_model: dict[Any, str] = {
        UnsupportedModelError: f"{name} {error}",
        errors.GatedRepoError: f"{name} is gated: accept its terms at {hub}/{choice.path}, and put "
        "the token of that account into HF_TOKEN.",
        errors.RepositoryNotFoundError: f"The hub has no public model {name}: check the spelling, "
        "or put the token of an account that may see it into HF_TOKEN.",
    }
    of_machine: dict[Any, str] = {
        "No space left": f"The disk is full: free some for {name}, or set HF_HOME to a larger one.",
        "bitsandbytes native": f"bitsandbytes {version('bitsandbytes')} does not work with torch "
        f"{torch.__version__}: pip install -U bitsandbytes; python -m bitsandbytes tells more.",
        torch.OutOfMemoryError: f"{name} in 4 bits does not fit this GPU: free it of other "
        f"programs, or take a smaller model, for example {MODEL_VARIABLE}=bundled.",
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
