"""The bundled tokenizer: a byte-level BPE with one token for each word of the small world."""

import re

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from ..tasks.knowledge import CUES
from .world import ENDINGS, GISTS, KINDS, ONSETS, REFERENCES, all_names


def words():
    """Every word of the world with a space before it, and the endings of names without: sorted
    list[str]."""
    texts = [*CUES.values(), "Question Answer and", *GISTS, *ONSETS]
    texts += [reference for references in REFERENCES.values() for reference in references]
    for relation in (relation for relations in KINDS.values() for relation in relations):
        texts += [
            *relation.told,
            *relation.implied,
            relation.asked,
            relation.examined,
            *relation.values,
            relation.topic,
        ]
    found = {word for text in texts for word in re.findall(r"[A-Za-z]+", re.sub(r"{\w}", "", text))}
    return sorted({" " + word for word in found} | set(ENDINGS))


def train_tokenizer():
    """The tokenizer of the small world: one token for every word, and for every name two, its onset
    and its ending."""
    names = [f" {name}" for name in all_names()]  # once each, so that none becomes one token
    return byte_level(words() * 2 + names, 2048, "bundled")


def byte_level(texts, size, prompts):
    """Train a tokenizer (a `PreTrainedTokenizerFast`) of at most `size` tokens: bytes, then merges
    of what occurs twice in `texts`.

    prompts: what `config_for` reads, here and wherever this tokenizer is saved. Like Mistral's own
    it puts a space before the first word, here of every line, so that a word is the same token
    wherever it stands; decoding takes that space away again, and any UTF-8 text comes back as it
    was.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("\n ", "\n"), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<pad>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("\n", "\n "), normalizers.Prepend(" ")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        prompts=prompts,
        split_special_tokens=True,  # "<s>" in a text is three characters, never the token
    )
