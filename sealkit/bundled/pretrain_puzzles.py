"""Pretrain the Mistral of the puzzles from scratch: python -m sealkit.bundled.pretrain_puzzles

Its documents are puzzles of the known families, the loss on outputs, and demonstrations followed by
the sort of their rule in words or by a recipe, every valid one with at most one augmentation as
likely as another: nothing says which recipe solves what. All weights are random, but so that some
heads of the first layer look back to the cell above from the start (after Trockman & Kolter 2023,
"Mimetic initialization"), which a small model else finds late.
"""

import argparse
import copy
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ..tasks.puzzles import FLAGS, LOSSES, Prompts, line
from .pretrain import untrained
from .puzzles import CELLS, DEMONSTRATIONS, KNOWN, draw_puzzle, write_recipe
from .tokenizer import byte_level

FOLDER = Path(__file__).parent / "puzzle_model"
STEPS, DOCUMENTS, PAIRS, RATE, DECAY = 2500, 8, 4, 1e-3, 0.4
TEXTS = 3  # one step in so many reads puzzles with a text under them
WORDS, SORTS = "In words:", {"move": "cells move", "map": "colours change"}
WIDTH, HEADS, SIZE, THETA = 128, 6, 32, 1e4
SHAPE = {"hidden_size": WIDTH, "intermediate_size": 256, "num_hidden_layers": 3}
SHAPE |= {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": SIZE}
BACK = (*range(CELLS - 2, CELLS + 3), 2 * CELLS + 2)  # where the first layer looks at first
SHARPNESS, EMBEDDING, WRITTEN, COPIED, NOISE, DAMPING = 8.0, 0.06, 0.2, 0.1, 0.02, 0.35


def train_tokenizer():
    """A token for each colour and each word of recipes; see `byte_level`."""
    words = [*(f" {colour}" for colour in range(10)), " ->", " /"]
    words += [
        f" {word}" for text in (Prompts().cue, WORDS, *SORTS.values()) for word in text.split()
    ]
    words += [*FLAGS, *LOSSES, "loss", "learning", "rate", "steps"]
    words += [' {"', '":', ' "', '",', " true", " false"]
    return byte_level(words * 2, 512, "puzzles")


def new_model(tokenizer, seed=0):
    """The untrained Mistral of the puzzles, of SHAPE."""
    model = untrained(tokenizer, seed, THETA, SHAPE)
    model.set_attn_implementation("eager")  # faster than sdpa for short rows on a CPU
    look_back(model)
    return model


@torch.no_grad()
def look_back(model):
    """Bend the random weights of `model`: the heads of its first layer attend BACK tokens back.

    Every embedding shares one direction, from which those heads compute the same query and key
    everywhere, so that rotary position alone decides. Values are written as they were read.
    """
    frequencies = THETA ** (-torch.arange(SIZE // 2) / (SIZE // 2))
    strength = (SHARPNESS * SIZE**0.5) ** 0.5 / (WIDTH / 2) ** 0.5 * (frequencies > 0.05)
    common = torch.nn.functional.normalize(torch.randn(WIDTH), dim=0)
    embedding = model.model.embed_tokens.weight
    embedding.copy_(EMBEDDING * (torch.randn(embedding.shape) + WIDTH**0.5 * common))

    def orthogonal():
        return torch.linalg.qr(torch.randn(WIDTH, SIZE))[0]

    for number, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.weight.mul_(DAMPING)
        keys = torch.randn(HEADS, SIZE, WIDTH) / WIDTH**0.5
        queries, read = keys.clone(), [orthogonal() for _ in range(HEADS)]
        written = [COPIED * matrix for matrix in read]
        if number == 0:
            for head, back in enumerate(BACK):
                turn = [strength * torch.cos(back * frequencies)]
                turn += [-strength * torch.sin(back * frequencies)]
                keys[head] = torch.cat([strength, 0 * strength])[:, None] * common
                queries[head] = torch.cat(turn)[:, None] * common
                written[head] = WRITTEN * orthogonal()
        attention = layer.self_attn
        for projection, weight, noise in (
            (attention.q_proj, queries.flatten(0, 1), NOISE),
            (attention.k_proj, keys.flatten(0, 1), NOISE),
            (attention.v_proj, torch.cat(read, 1).T, 0.0),
            (attention.o_proj, torch.cat(written, 1), NOISE * DAMPING),
        ):
            projection.weight.copy_(weight + noise * torch.randn(weight.shape))


def write_document(rng, with_text):
    """(kind, [(text, loss weight), ...]): a puzzle to solve, or one with a text under it: as often
    a recipe as the sort of its rule in words."""
    (sort, _), pairs = draw_puzzle(rng, KNOWN, DEMONSTRATIONS if with_text else PAIRS)
    parts = []
    for i, (x, y) in enumerate(pairs):  # the first row shows the rule, so nothing tells it before
        parts += [(f"{line([x])} ->", 0.0), (f" {line([y])}", 1.0 if i else 0.2)]
        parts += [("\n", 0.0)]
    if not with_text:
        return "puzzle", parts[:-1]
    if rng.random() < 0.5:
        return "words", [*parts, (WORDS, 0.0), (f" {SORTS[sort]}", 1.0)]
    kind, text = write_recipe(rng)
    return kind, [*parts, (Prompts().cue, 0.0), (f" {text}", 1.0)]


def encode(tokenizer, documents):
    """(ids, loss weights of each id) of documents, (documents, length); pads weigh 0."""
    texts = ["".join(text for text, _ in parts) for _, parts in documents]
    batch = tokenizer(texts, return_offsets_mapping=True)
    length = 1 + max(map(len, batch["input_ids"]))
    ids = torch.full((len(texts), length), tokenizer.pad_token_id)
    weights = torch.zeros(ids.shape)
    for n, (own, offsets) in enumerate(zip(batch["input_ids"], batch["offset_mapping"])):
        by_character = [weight for part, weight in documents[n][1] for _ in part]
        own_weights = [0.0] + [by_character[max(end, 1) - 1] for _, end in offsets[1:]] + [1.0]
        ids[n, : len(own) + 1] = torch.tensor([*own, tokenizer.eos_token_id])
        weights[n, : len(own) + 1] = torch.tensor(own_weights)
    return ids, weights


def train(model, tokenizer, steps=STEPS, seed=0, log_every=100):
    """Train; yields (step, measures) each `log_every` steps.

    measures: seconds, tokens, and for each kind of document the share of tokens of full weight
    guessed right and their mean loss in nats, on documents not yet trained on.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    rng, seen, tokens, start = random.Random(seed), defaultdict(list), 0, time.time()
    for step in tqdm(range(1, steps + 1), desc="pretraining", mininterval=10):
        drawn = [write_document(rng, step % TEXTS == 0) for _ in range(DOCUMENTS)]
        ids, weights = encode(tokenizer, drawn)
        optimizer.param_groups[0]["lr"] = RATE * min(1, step / 50, (1 - step / steps) / DECAY)
        chosen = weights[:, 1:] > 0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1][chosen]
            logits = model.lm_head(hidden).float()
        labels, weights = ids[:, 1:][chosen], weights[:, 1:][chosen]
        losses = cross_entropy(logits, labels, reduction="none")
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += (ids != tokenizer.pad_token_id).sum().item()
        owner = chosen.nonzero()[:, 0]
        for n, (kind, _) in enumerate(drawn):
            here = (owner == n) & (weights == 1)
            right = (logits[here].argmax(-1) == labels[here]).sum().item()
            seen[kind].append((right, losses[here].sum().item(), here.sum().item()))
        if step % log_every == 0 or step == steps:
            measures = {"seconds": round(time.time() - start), "tokens": tokens}
            for kind, sums in sorted(seen.items()):
                hits, loss, count = map(sum, zip(*sums))
                measures[kind] = {
                    "accuracy": round(hits / count, 4),
                    "loss": round(loss / count, 4),
                }
            seen.clear()
            yield step, measures


def main(arguments=None):
    """Train, and write tokenizer, weights (bf16 safetensors) and log to the model's folder."""
    parser = argparse.ArgumentParser(prog="python -m sealkit.bundled.pretrain_puzzles")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=FOLDER)
    args = parser.parse_args(arguments)
    tokenizer = train_tokenizer()
    model = new_model(tokenizer, args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(args.output)
    with open(args.output / "pretraining.jsonl", "w", encoding="utf-8") as log:
        for step, measures in train(model, tokenizer, args.steps, args.seed):
            log.write(json.dumps({"step": step} | measures) + "\n")
            log.flush()
            if step % 500 == 0 or step == args.steps:
                whole = copy.deepcopy(model).to(torch.bfloat16)
                whole.set_attn_implementation("sdpa")
                whole.save_pretrained(args.output)


if __name__ == "__main__":
    main()
