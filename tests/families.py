"""Tiny random models of many families, each with a tokenizer of its family's kind, saved to a
folder.

Below them, the only lines by which `test_models.py` touches the inside of the loops.
"""

import json
from dataclasses import replace

import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import sealkit
from sealkit import inner_loop, lora
from sealkit.tasks import knowledge

GENERAL, BUNDLED = knowledge.GENERAL_CONFIG.prompts, knowledge.BUNDLED_CONFIG.prompts

CONFIGS = ("mistral", "llama", "qwen2")  # which the slower tests go through
SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = SMALL | {"intermediate_size": 256, "num_key_value_heads": 2}
HEADS = LLAMA | {"head_dim": 32}
GPT = {"n_embd": 128, "n_layer": 2, "n_head": 4}
DROP = {"attention_dropout": 0.1, "hidden_dropout": 0.1}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
WORK = {  # family: what is small about it; dropout is on where the family has it
    "mistral": LLAMA | {"attention_dropout": 0.1},
    "llama": LLAMA | {"attention_dropout": 0.1},
    "qwen2": LLAMA,
    "qwen3": HEADS,
    "gemma": HEADS,
    "gemma2": HEADS,
    "gemma3_text": HEADS,
    "phi": LLAMA | {"resid_pdrop": 0.1},
    "phi3": LLAMA | {"resid_pdrop": 0.1},
    "olmo": LLAMA,
    "olmo2": LLAMA,
    "stablelm": LLAMA | DROP,
    "starcoder2": LLAMA,
    "cohere": LLAMA,
    "glm": HEADS,
    "granite": LLAMA,
    "smollm3": LLAMA,
    "gpt2": GPT,
    "gpt_neox": LLAMA | DROP,
    "gptj": GPT | {"rotary_dim": 16},
    "codegen": GPT | {"rotary_dim": 16},
    "gpt_bigcode": GPT,
    "falcon": SMALL | DROP,
    "opt": SMALL | {"ffn_dim": 256, "word_embed_proj_dim": 128, "layerdrop": 0.5},
    "mpt": {"d_model": 128, "n_layers": 2, "n_heads": 4},
}
REFUSED = {  # family: what is small about it, what the sentence has to say
    "mixtral": (LLAMA | EXPERTS, "would keep .* in 16 bits .*experts"),
    "qwen2_moe": (
        LLAMA
        | {"num_experts": 4, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64},
        "would keep .* in 16 bits .*experts",
    ),
    "gpt_oss": (HEADS | EXPERTS, "would keep .* in 16 bits .*experts"),
    "bloom": ({"hidden_size": 128, "n_layer": 2, "n_head": 4}, "can't keep texts apart"),
    "mamba": ({"hidden_size": 128, "num_hidden_layers": 2}, "can't keep texts apart"),
    "mamba2": (SMALL | {"num_heads": 8, "head_dim": 32, "n_groups": 1}, "can't keep texts apart"),
    "lfm2": (
        LLAMA | {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
        "can't keep texts apart",
    ),
    "openai-gpt": (GPT, "can't keep texts apart"),
    "gemma3": (
        {
            "text_config": HEADS | {"vocab_size": 1100},
            "vision_config": SMALL | {"intermediate_size": 64, "image_size": 28},
        },
        "is not for texts alone",
    ),
}
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def texts():
    """What the tokenizers learn from: passages and all prompts."""
    passages = sealkit.load_passages("bundled", "validation", 40)
    return [f"{p.title}\n{p.text}\n{p.oracle}" for p in passages] + [
        *GENERAL.examples.values(),
        *BUNDLED.cues.values(),
        GENERAL.exam,
    ]


def tokenizer_like(family):
    """Qwen2: byte-level, no start token, ".\\n" is one token. Mistral: like SentencePiece with byte
    fallback. Llama: Llama 3's.

    None has a pad token; Mistral and Llama begin every text with a start token.
    """
    if family == "mistral":
        special, tokenizer = (
            ["<unk>", "<s>", "</s>"],
            Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)),
        )
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=1024,
            special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)],
            show_progress=False,
            limit_alphabet=200,
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
        tokenizer.train_from_iterator((text.replace("\n", "") for text in texts()), trainer)
        state = json.loads(tokenizer.to_str()) | {"pre_tokenizer": None}
        state["added_tokens"] = [
            token for token in state["added_tokens"] if token["content"] in special
        ]  # bytes are ordinary tokens
        tokenizer = Tokenizer.from_str(json.dumps(state))
        bos, eos = special[1:]
    else:
        bos, eos = (
            ("<|begin_of_text|>", "<|end_of_text|>")
            if family == "llama"
            else (None, "<|endoftext|>")
        )
        tokenizer = Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(QWEN), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=1024,
            special_tokens=[token for token in (bos, eos) if token],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        tokenizer.train_from_iterator(texts(), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False
    )


def save(family, folder, **changes):
    """A random model of `family`, as small as above if `changes` of its config do not say
    otherwise, and its tokenizer, in `folder`."""
    tokenizer = tokenizer_like(family)
    torch.manual_seed(0)
    small = WORK[family] if family in WORK else REFUSED[family][0]
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    config = AutoConfig.for_model(family, **{"vocab_size": len(tokenizer)} | ids | small | changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config.update(
        do_sample=True, temperature=0.6, top_p=0.9, repetition_penalty=1.3
    )  # as instruct models ship
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Inside:
    """A policy of a model and k forks of it, with the calls that the tests by family make on
    them."""

    def __init__(self, model, tokenizer, k):
        config = replace(
            knowledge.GENERAL_CONFIG,
            steps=3,
            learning_rate=1e-2,
            max_tokens=64,
            checkpointing=False,
        )
        self.policy = sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)
        self.adapters = lora.fork(self.policy.model, k)

    def batch(self, *rows):
        """One row for each list of texts, packed."""
        return rows

    def logits(self, rows):
        """Of every token, in one list of rows with the pads."""
        packed = [inner_loop.pack(self.policy, row) for row in rows]
        inputs, _ = inner_loop.collate(
            packed, self.policy.tokenizer.pad_token_id, self.policy.model.device
        )
        with lora.side_by_side(self.policy.model, self.adapters), torch.no_grad():
            return self.policy.model(**inputs, use_cache=False).logits

    def answers(self, prompts):
        """Adapter i's greedy continuation of prompt i, in one batch."""
        with lora.side_by_side(self.policy.model, self.adapters):
            return self.policy.write(prompts, max_new_tokens=8)

    def train(self, rows, steps=3, checkpointing=False):
        """Losses (steps, k) of training each adapter on its row."""
        config = replace(self.policy.config, checkpointing=checkpointing)
        lessons = [sealkit.Lesson(row, steps, 1e-2) for row in rows]
        losses, _ = inner_loop.sft(replace(self.policy, config=config), self.adapters, lessons)
        return torch.tensor(losses).T

    def done(self):
        """The model, without its LoRA."""
        return self.policy.model.unload()
