"""What the libraries raise while a model is loaded, as one sentence with its remedy."""

import re
from importlib.metadata import version
from socket import gaierror
from typing import Any

import torch
from huggingface_hub import constants, errors

from .choice import MODEL_VARIABLE, Choice

TOKEN = (
    f"{constants.ENDPOINT} does not accept the token in HF_TOKEN: copy one from "
    f"{constants.ENDPOINT}/settings/tokens, or unset HF_TOKEN where the model is open."
)


class UnsupportedModelError(ValueError):
    """The model can't do what the loops need; the message goes on after the model's name."""


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
        "Invalid credentials": TOKEN,
        "Invalid user token": TOKEN,
        errors.GatedRepoError: f"{name} is gated: accept its terms at {hub}/{choice.path}, and put "
        "the token of that account into HF_TOKEN (in Colab a secret, see notebook 4).",
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
