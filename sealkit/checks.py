"""What a loaded model has to be: all of it in 4 bits, without dropout, its packed texts kept apart.

Checked by what a model does and not by its family, as transformers has some 200 of them.
"""

import bitsandbytes as bnb
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from .models.convert import embedding_rows
from .models.errors import UnsupportedModelError

MAX_SHARE_IN_16_BITS = 0.05  # of the decoder's weights that may stay in 16 bits, as routers do


def check_layers(model: PreTrainedModel) -> None:
    """Raise UnsupportedModelError for decoder matrices not in 4 bits, or a model of more than text.

    A model on the meta device is asked what would be: nothing of it has to be downloaded.
    """
    if model.config.get_text_config() is not model.config:
        raise UnsupportedModelError(
            f"(a {model.config.model_type}) is not for texts alone: choose one that is."
        )
    total, head = 0, model.get_output_embeddings()
    left: dict[str, int] = {}  # weights by the name of their parameter
    exempt = nn.Embedding, nn.Conv1d, nn.Conv2d  # not products with a matrix, and small
    for name, module in model.get_decoder().named_modules():
        for key, weight in module.named_parameters(name, recurse=False):
            if weight.ndim < 2 or module is head or isinstance(module, exempt):
                continue
            state = getattr(weight, "quant_state", None)
            size = weight.numel() if state is None else state.shape.numel()
            total += size
            if state is None and not (weight.is_meta and isinstance(module, (nn.Linear, Conv1D))):
                left[key] = size
    if sum(left.values()) > MAX_SHARE_IN_16_BITS * total:
        raise UnsupportedModelError(
            f"(a {model.config.model_type}) would keep {sum(left.values()) / total:.0%} of its "
            f"weights in 16 bits ({max(left, key=left.__getitem__)} for one), as bitsandbytes "
            "holds only linear layers in 4: choose a model made of these, without fused experts."
        )


def check_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UnsupportedModelError if a text can have tokens that the model does not embed."""
    rows = embedding_rows(model)
    if tokenizer.eos_token is None:
        raise UnsupportedModelError(
            "has a tokenizer without an end token, so no text would end: choose another."
        )
    unseen = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    unseen -= {tokenizer.bos_token_id, tokenizer.eos_token_id}  # others' names stay plain text
    last = max({*tokenizer.get_vocab().values()} - unseen)
    if last >= rows:
        raise UnsupportedModelError(
            f"has a tokenizer with the token id {last} and embeddings up to {rows - 1}: take the "
            "tokenizer that this model was trained with."
        )


def check_length(model: PreTrainedModel | PeftModel, tokens: int) -> None:
    """Raise ValueError if the model has fewer positions than a text has tokens.

    Learned positions would fail deep inside the model, computed ones silently give nonsense.
    """
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", getattr(config, "max_seq_len", tokens))
    if positions and tokens > positions:
        raise ValueError(
            f"A text of {tokens} tokens, with the answer, is longer than this model's {positions} "
            "positions: take shorter passages, or a model with a longer context."
        )


def check_packing(model: PreTrainedModel) -> None:
    """Raise UnsupportedModelError if the model mixes up texts in one row, or rows of one batch."""
    tolerance = 1e-4 if model.dtype == torch.float32 else 0.15  # a real model strays by 3% in bf16
    cause = None
    try:
        if packing_error(model) <= tolerance:
            return
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        cause = error
    raise UnsupportedModelError(
        f"(a {model.config.model_type}) can't keep texts apart that are packed into one row: "
        "choose a model with ordinary attention, such as a Mistral, Llama, Qwen, Gemma or GPT-2."
    ) from cause


@torch.no_grad()
def packing_error(model: PreTrainedModel) -> float:
    """Two texts in two rows against the same two packed into one: the largest relative difference.

    All layers' inputs and the logits are compared. The two rows run as in evaluation, the packed
    row as under gradient checkpointing. So near 0 means that position ids alone keep packed texts
    apart, that each row reaches each layer as one block, as adapters side by side need it, and that
    nothing drops out.
    """
    ids = torch.arange(16, device=model.device) * 37 % embedding_rows(model)
    positions = torch.arange(8, device=model.device).repeat(2)
    inputs_by_rows: dict[int, list[Tensor]] = {2: [], 1: []}
    for rows, values in inputs_by_rows.items():

        def record(
            layer: nn.Module, args: tuple[Tensor, ...], values: list[Tensor] = values
        ) -> None:
            values.append(args[0].flatten())

        hooks = []
        for layer in model.modules():
            layer.training = rows == 1 and isinstance(layer, GradientCheckpointingLayer)
            if isinstance(layer, bnb.nn.Linear4bit):
                hooks.append(layer.register_forward_pre_hook(record))
        inputs = {"input_ids": ids.view(rows, -1), "position_ids": positions.view(rows, -1)}
        values.append(model(**inputs, use_cache=False).logits.flatten())
        for hook in hooks:
            hook.remove()
    model.eval()
    pairs = [(a.float(), b.float()) for a, b in zip(*inputs_by_rows.values(), strict=True)]
    return max(((a - b).norm() / a.norm().clamp(min=1e-9)).item() for a, b in pairs)
