"""Pretrain the Mistral of the puzzles from scratch: python -m sealkit.bundled.pretrain_puzzles

Its documents are puzzles of the known families, the loss on outputs, and demonstrations of rules
drawn anew, followed by a recipe: it says the sort of the rule in words, and all else in it is as
likely as anything else that is valid, with at most one augmentation: nothing says which recipe
solves what. All weights are random, but so that some heads of the first layer look back to the cell
above from the start (after Trockman & Kolter 2023, "Mimetic initialization"), which a small model
else finds late. Killed, the same command with --resume goes on.
"""

import argparse
import copy
import json
import random
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ..tasks.puzzles import FLAGS, LOSSES, Prompts, line, shown
from .pretrain import Training, train, untrained
from .puzzles import CELLS, DEMONSTRATIONS, KNOWN, SORTS, draw_new, draw_puzzle, write_recipe
from .tokenizer import byte_level

FOLDER = Path(__file__).parent / "puzzle_model"
CHECKPOINT = Path("runs/pretraining/puzzles.safetensors")
STEPS, PAIRS, RATE, DECAY = 1500, 4, 1e-3, 0.5
ANEW = 0.85  # of the demonstrations above a recipe
END = "</s>"  # of a document's text; not of one that stops within a recipe
WIDTH, HEADS, SIZE, THETA = 128, 6, 32, 1e4
SHAPE = {"hidden_size": WIDTH, "intermediate_size": 256, "num_hidden_layers": 3}
SHAPE |= {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": SIZE}
BACK = (*range(CELLS - 2, CELLS + 3), 2 * CELLS + 2)  # where the first layer looks at first
SHARPNESS, EMBEDDING, WRITTEN, COPIED, NOISE, DAMPING = 8.0, 0.06, 0.2, 0.1, 0.02, 0.35


def train_tokenizer():
    """A token for each colour and each word of recipes; see `byte_level`."""
    words = [*(f" {colour}" for colour in range(10)), " ->", " /", f" {Prompts().cue}"]
    for sort in SORTS.values():
        first, *others = sort.split()
        words += [first, *(f" {word}" for word in others)]
    words += [*FLAGS, *LOSSES, "rule", "loss", "learning", "rate", "steps"]
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


def write_puzzle(rng):
    """("puzzle", [(text, loss weight), ...]): a puzzle of a known family to solve."""
    _, pairs = draw_puzzle(rng, KNOWN, PAIRS)
    parts = []
    for i, (x, y) in enumerate(pairs):  # the first row shows the rule, so nothing tells it before
        parts += [(f"{line([x])} ->", 0.0), (f" {line([y])}", 1.0 if i else 0.2)]
        parts += [("\n", 0.0)]
    return "puzzle", [*parts[:-1], (END, 1.0)]


def write_demonstrations(rng):
    """(sort, text): demonstrations of a rule, most often of one drawn anew, and the cue."""
    if rng.random() < ANEW:
        sort, pairs = draw_new(rng, DEMONSTRATIONS)
    else:
        (sort, _), pairs = draw_puzzle(rng, KNOWN, DEMONSTRATIONS)
    return sort, shown(([x], [y]) for x, y in pairs) + Prompts().cue


def write_sort(rng):
    """("sort", parts): a recipe that ends with the first word for the sort of the rule."""
    sort, text = write_demonstrations(rng)
    return "sort", [(f'{text} {{"rule": "', 0.0), (SORTS[sort].split()[0], 1.0)]


def write_text(rng):
    """(kind, parts): a whole recipe, spoilt or not, which says the sort of the rule."""
    sort, text = write_demonstrations(rng)
    kind, recipe = write_recipe(rng, SORTS[sort])
    return kind, [(text, 0.0), (f" {recipe}", 1.0), (END, 1.0)]


def encode(tokenizer, documents):
    """(ids, loss weights of each id) of documents, (documents, length); pads weigh 0."""
    texts = ["".join(text for text, _ in parts) for _, parts in documents]
    batch = tokenizer([text.removesuffix(END) for text in texts], return_offsets_mapping=True)
    ends = [[tokenizer.eos_token_id] * text.endswith(END) for text in texts]
    length = 1 + max(map(len, batch["input_ids"]))
    ids = torch.full((len(texts), length), tokenizer.pad_token_id)
    weights = torch.zeros(ids.shape)
    for n, (own, offsets) in enumerate(zip(batch["input_ids"], batch["offset_mapping"])):
        by_character = [weight for part, weight in documents[n][1] for _ in part]
        own_weights = [0.0] + [by_character[max(end, 1) - 1] for _, end in offsets[1:]]
        size = len(own) + len(ends[n])
        ids[n, :size] = torch.tensor([*own, *ends[n]])
        weights[n, :size] = torch.tensor(own_weights + [1.0] * len(ends[n]))
    return ids, weights


BATCH = {write_puzzle: 8, write_sort: 44, write_text: 3}  # documents of a step


class PuzzleTraining(Training):
    """The `Training` of the puzzles' model: each step takes documents of each kind of BATCH."""

    def take_step(self):
        """Train on the documents of the next step, each kind's mean loss weighing the same."""
        started, rng = time.time(), random.Random(f"{self.seed} {self.step}")
        for write, count in BATCH.items():
            documents = [write(rng) for _ in range(count)]
            ids, weights = encode(self.tokenizer, documents)
            chosen = weights[:, 1:] > 0
            with torch.autocast("cpu", dtype=torch.bfloat16):
                hidden = self.model.model(ids, use_cache=False).last_hidden_state[:, :-1][chosen]
                logits = self.model.lm_head(hidden).float()
            labels, weights = ids[:, 1:][chosen], weights[:, 1:][chosen]
            losses = cross_entropy(logits, labels, reduction="none")
            ((losses * weights).sum() / weights.sum()).backward()
            self.tokens += (ids != self.tokenizer.pad_token_id).sum().item()
            right, owner = logits.argmax(-1) == labels, chosen.nonzero()[:, 0]
            for n, (kind, _) in enumerate(documents):
                here = (owner == n) & (weights == 1)
                new = right[here].sum().item(), losses[here].sum().item(), here.sum().item()
                self.seen[kind] = [a + b for a, b in zip(self.seen.get(kind, (0, 0.0, 0)), new)]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        rate = min(1, (self.step + 1) / 50, (1 - self.step / STEPS) / DECAY)
        self.optimizer.param_groups[0]["lr"] = RATE * rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.seconds += time.time() - started

    def note(self):
        """A line of the log, as `Training.note` has it; there is one stage."""
        row = super().note()
        del row["stage"]
        return row


def main(arguments=None):
    """Train, and write tokenizer, weights (bf16 safetensors) and log to the model's folder."""
    parser = argparse.ArgumentParser(prog="python -m sealkit.bundled.pretrain_puzzles")
    parser.add_argument("--steps", type=int, default=STEPS, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--output", type=Path, default=FOLDER)
    args = parser.parse_args(arguments)
    tokenizer = train_tokenizer()
    training = PuzzleTraining(new_model(tokenizer, args.seed), tokenizer, args.seed)
    if args.resume and args.checkpoint.exists():
        training.load(args.checkpoint)
    args.output.mkdir(parents=True, exist_ok=True)
    for row in train(training, args.steps, checkpoint=args.checkpoint):
        tqdm.write(json.dumps(row))
    tokenizer.save_pretrained(args.output)
    training.model.set_attn_implementation("sdpa")
    copy.deepcopy(training.model).to(torch.bfloat16).save_pretrained(args.output)
    log = "".join(json.dumps(row) + "\n" for row in training.log)
    (args.output / "pretraining.jsonl").write_text(log, encoding="utf-8")


if __name__ == "__main__":
    main()
