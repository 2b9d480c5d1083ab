"""Pretrain the bundled Mistral from scratch: python -m sealkit.bundled.pretrain

Documents are written afresh by `world.py` for every batch, so nothing but the known facts is ever
seen twice. The loss counts what can be known (answers, self-edits, repeats) fully and what is drawn
at random (passages, questions) hardly. Two things made a reader of this size in minutes, not hours:
a first stage of nothing but repeated random tokens, in which copying forms, and the Muon optimizer
for the matrices.
"""

import argparse
import copy
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import MistralConfig, MistralForCausalLM

from ..inner_loop import collate
from ..loading import BUNDLED_MODEL
from ..tasks import knowledge
from ..tasks.passages import Passage, Question
from . import world
from .tokenizer import train_tokenizer

COPYING_STAGE = 0.015  # share of all steps with repeated random tokens only
FADE = 0.1  # by then passages name their subjects by pronoun as the splits do
ROWS, LENGTH = 12, 256  # of a batch; a row holds several documents, none of which sees another
LEARNING_RATE = {"muon": 0.01, "adamw": 3e-3}


def repeated_tokens(rng, vocabulary):
    """A random token sequence said over and over: (ids, loss weights)."""
    once = [rng.randrange(259, vocabulary) for _ in range(rng.randint(4, 24))]
    times = rng.randint(2, 4)
    return [0] + once * times, [0.0] * (1 + len(once)) + [1.0] * len(once) * (times - 1)


def question_prompt(question):
    """The exam's prompt for one question."""
    return knowledge.questions(Passage("", "", (question,)), knowledge.BUNDLED)[0]


def write_document(rng, known, passing, by_name):
    """(kind, [(text, loss weight), ...]): a known fact, a passage with questions, or a passage with
    a self-edit.

    by_name: the chance that a passage repeats a subject's name where the splits would use a pronoun
    or a role.
    """
    if rng.random() < 0.4:
        subject = rng.choice(known)
        relation, value = rng.choice(subject.facts)
        if rng.random() < 0.5:
            return "known fact", [(world.imply(rng, subject, relation, value), 0.5)]
        question = Question(world.ask(rng, subject, relation), (value,))
        return "known question", [(question_prompt(question), 0.1), (" " + value, 1.0)]
    count = rng.choice((1, 2, 2, 3, 3))
    names, facts = world.draw_names(rng, passing, count), rng.randint(1, 3 if count == 3 else 4)
    subjects = world.make_group(rng, names, facts, alike=rng.random() < 0.15)
    passage = Passage(
        " and ".join(s.name for s in subjects), world.tell(rng, subjects, by_name), ()
    )
    if rng.random() < 0.6:
        facts = [(subject, *fact) for subject in subjects for fact in subject.facts]
        rng.shuffle(facts)
        parts = [(f"{passage.title}\n{passage.text}\n", 0.1)]
        for subject, relation, value in facts:
            question = Question(world.ask(rng, subject, relation), (value,))
            parts += [("\n" + question_prompt(question), 0.1), (" " + value, 1.0)]
        return "reading", parts
    style = rng.choice(knowledge.BUNDLED.prompts.styles)
    prompt = knowledge.prompt(passage, knowledge.BUNDLED, style if rng.random() < 0.5 else None)
    return style, [(prompt, 0.1), (" " + world.write_self_edit(rng, subjects, style), 1.0)]


def encode(tokenizer, documents):
    """(kind, ids, loss weight of each id) of documents written by `write_document`; the end token
    weighs 1."""
    if not documents:
        return
    texts = ["".join(text for text, _ in parts) for _, parts in documents]
    batch = tokenizer(texts, return_offsets_mapping=True)
    for (kind, parts), ids, offsets in zip(documents, batch["input_ids"], batch["offset_mapping"]):
        by_character = [weight for part, weight in parts for _ in part]
        weights = [0.0] + [by_character[max(end, 1) - 1] for _, end in offsets[1:]]
        yield kind, ids + [tokenizer.eos_token_id], weights + [1.0]


def documents(tokenizer, progress, seed=0):
    """Endless (kind, ids, weights). progress: a function that says which share of the training is
    done, from 0 to 1."""
    rng = random.Random(seed)
    known, passing = world.known_subjects(), world.passing_names()
    while True:
        done = progress()
        copying = 1.0 if done < COPYING_STAGE else 0.03
        by_name = max(0.0, 1 - (done - COPYING_STAGE) / (FADE - COPYING_STAGE))
        count = sum(rng.random() < copying for _ in range(60))
        written = [
            write_document(rng, known, passing, by_name if rng.random() < 0.75 else rng.random())
            for _ in range(60 - count)
        ]
        drawn = [("copying", *repeated_tokens(rng, len(tokenizer))) for _ in range(count)] + list(
            encode(tokenizer, written)
        )
        rng.shuffle(drawn)
        yield from drawn


def batches(stream):
    """Pack documents into batches: lists of ROWS lists of (kind, ids, weights), each of at most
    LENGTH tokens together."""
    rows, free = [[] for _ in range(ROWS)], [LENGTH] * ROWS
    for document in stream:
        fitting = [row for row in range(ROWS) if free[row] >= len(document[1])]
        if not fitting:
            yield rows
            rows, free, fitting = [[] for _ in range(ROWS)], [LENGTH] * ROWS, [0]
        fullest = min(fitting, key=free.__getitem__)
        rows[fullest].append(document)
        free[fullest] -= len(document[1])


def new_model(tokenizer, seed=0):
    """The untrained bundled Mistral: 4 layers, 256 wide, 8 heads (4 of keys and values), tied
    embeddings."""
    torch.manual_seed(seed)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=-(-len(tokenizer) // 64) * 64,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=1024,
            sliding_window=None,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train(model, tokenizer, steps, seed=0, log_every=100):
    """Train for `steps` steps; yields (step, measures) each `log_every` steps.

    measures: seconds, tokens, and for each kind of document the share of fully weighted tokens
    guessed right and their mean loss in nats, on documents not yet trained on.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = {
        "muon": torch.optim.Muon(matrices, lr=LEARNING_RATE["muon"], weight_decay=0.01),
        "adamw": torch.optim.AdamW(
            others, lr=LEARNING_RATE["adamw"], betas=(0.9, 0.98), weight_decay=0.01
        ),
    }
    seen, tokens, start, step = defaultdict(list), 0, time.time(), 0
    stream = batches(documents(tokenizer, lambda: step / steps, seed))
    for step in tqdm(range(1, steps + 1), desc="pretraining", mininterval=10):
        rows = next(stream)
        packed = [
            (
                [i for _, ids, _ in row for i in ids],
                [p for _, ids, _ in row for p in range(len(ids))],
            )
            for row in rows
        ]
        inputs, labels = collate(packed, tokenizer.pad_token_id, model.device)
        weights = torch.zeros(labels.shape)
        for line, row in zip(weights, rows):
            flat = [weight for _, _, weights in row for weight in weights]
            line[: len(flat)] = torch.tensor(flat)
        labels, weights = labels[:, 1:], weights[:, 1:].to(model.device)
        rate = min(1, step / 50) * (1 - step / steps)
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = LEARNING_RATE[name] * rate
        logits = model(**inputs, use_cache=False).logits[:, :-1]
        losses = cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none"
        ).view_as(labels)
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        right, losses, counted = (
            logits.argmax(-1) == labels,
            losses.detach(),
            (weights == 1) & (labels != tokenizer.eos_token_id),
        )
        for line, row in enumerate(rows):
            at = -1
            for kind, ids, _ in row:
                here = (line, slice(max(at, 0), at + len(ids)))
                chosen = counted[here]
                seen[kind].append(
                    [
                        value.sum().item()
                        for value in (right[here] & chosen, losses[here] * chosen, chosen)
                    ]
                )
                at += len(ids)
                tokens += len(ids)
        if step % log_every == 0 or step == steps:
            measures = {"seconds": round(time.time() - start), "tokens": tokens}
            for kind, sums in sorted(seen.items()):
                hits, loss, count = map(sum, zip(*sums))
                if count:
                    measures[kind] = {
                        "accuracy": round(hits / count, 4),
                        "loss": round(loss / count, 4),
                    }
            seen.clear()
            yield step, measures


def plot_pretraining(path=BUNDLED_MODEL / "pretraining.jsonl", ax=None):
    """How the bundled model learned, from its log: share of tokens guessed right by kind of
    document, against tokens seen."""
    ax = ax or plt.subplots(figsize=(7, 4), layout="constrained")[1]
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    for kind in ("reading", "known question", "implications", "questions", "rewrite", "gist"):
        points = [(row["tokens"] / 1e6, 100 * row[kind]["accuracy"]) for row in rows if kind in row]
        ax.plot(*zip(*points), label=kind)
    ax.set(xlabel="tokens seen, millions", ylabel="next token right, %", ylim=(0, 102))
    ax.legend(fontsize="small", ncols=2)
    return ax


def main(arguments=None):
    """Train, and write tokenizer, weights (bf16 safetensors), log and curves to the model's
    folder."""
    parser = argparse.ArgumentParser(
        prog="python -m sealkit.bundled.pretrain",
        description="Pretrain the bundled Mistral from scratch.",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=2600,
        help=f"steps of up to {ROWS * LENGTH} tokens (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=BUNDLED_MODEL)
    args = parser.parse_args(arguments)
    tokenizer = train_tokenizer()
    model = new_model(tokenizer, args.seed).to(args.device)
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(args.output)
    with open(args.output / "pretraining.jsonl", "w", encoding="utf-8") as log:
        for step, measures in train(model, tokenizer, args.steps, args.seed):
            log.write(json.dumps({"step": step} | measures) + "\n")
            log.flush()
            if step % 500 == 0 or step == args.steps:
                copy.deepcopy(model).to(torch.bfloat16).save_pretrained(args.output)
    plot_pretraining(args.output / "pretraining.jsonl").figure.savefig(
        args.output / "pretraining.png", dpi=100
    )


if __name__ == "__main__":
    main()
