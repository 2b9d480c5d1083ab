"""Tiny random Mistral, Llama and Qwen2 models, each with a tokenizer of its family's kind, saved to a folder."""

import json

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config

import sealkit
from sealkit.tasks import knowledge

GENERAL, BUNDLED = knowledge.GENERAL.prompts, knowledge.BUNDLED.prompts

CONFIGS = {"mistral": MistralConfig, "llama": LlamaConfig, "qwen2": Qwen2Config}
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def texts():
    """What the tokenizers learn from: passages and all prompts."""
    passages = sealkit.load_passages("bundled", "validation", 40)
    return [f"{p.title}\n{p.text}\n{p.oracle}" for p in passages] + [*GENERAL.examples.values(), *BUNDLED.cues.values(), GENERAL.exam]


def tokenizer_like(family):
    """Qwen2: byte-level, no start token, ".\\n" is one token. Mistral: like SentencePiece with byte fallback. Llama: Llama 3's.

    None has a pad token; Mistral and Llama begin every text with a start token.
    """
    if family == "mistral":
        special, tokenizer = ["<unk>", "<s>", "</s>"], Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        trainer = trainers.BpeTrainer(vocab_size=1024, special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)], show_progress=False,
                                      limit_alphabet=200)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
        tokenizer.train_from_iterator((text.replace("\n", "") for text in texts()), trainer)
        state = json.loads(tokenizer.to_str()) | {"pre_tokenizer": None}
        state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]  # bytes are ordinary tokens
        tokenizer = Tokenizer.from_str(json.dumps(state))
        bos, eos = special[1:]
    else:
        bos, eos = ("<|begin_of_text|>", "<|end_of_text|>") if family == "llama" else (None, "<|endoftext|>")
        tokenizer = Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(QWEN), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=1024, special_tokens=[token for token in (bos, eos) if token], show_progress=False,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        tokenizer.train_from_iterator(texts(), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False)


def save(family, folder, **changes):
    """A random model of `family`, 2 layers of 128 if `changes` of its config do not say otherwise, and its tokenizer, in `folder`."""
    tokenizer = tokenizer_like(family)
    torch.manual_seed(0)
    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = CONFIGS[family](
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
        tie_word_embeddings=False, **(small | changes),
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9, repetition_penalty=1.3)  # as instruct models ship
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
