"""Pretrain the bundled Mistral from scratch: python -m sealkit.bundled.pretrain [--resume]

Documents are written afresh by `world.py` for every batch, so nothing but the known facts is ever
seen twice. A batch depends on (seed, step) alone, so a training that was stopped goes on to the bit
where its last checkpoint was written.

Binding (whose fact is it?) is what a small model learns last. Three things make it form in minutes,
not hours: weights that start as a reader's would (`new_model`), a curriculum from key-value pairs
to passages (`STAGES`), and many small batches.
"""

import argparse
import copy
import json
import os
import random
import re
import time
from collections import defaultdict
from itertools import accumulate
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import MistralConfig, MistralForCausalLM

from ..inner_loop import collate
from ..models.choice import BUNDLED_MODEL
from ..tasks import knowledge
from ..tasks.passages import Passage, Question
from . import world
from .tokenizer import train_tokenizer

STAGES = (  # (steps, share of documents of each sort)
    (500, {"pairs": 0.6, "topics": 0.4}),
    (1500, {"pairs": 0.1, "topics": 0.25, "notes": 0.25, "reading": 0.25, "self-edit": 0.15}),
    (10000, {"pairs": 0.03, "topics": 0.03, "known": 0.38, "reading": 0.14, "self-edit": 0.42}),
)
ALIKE = 1, 0.7, 0.7  # share of passages, by stage, whose subjects only their names tell apart
ENDS = list(accumulate(steps for steps, _ in STAGES))
STEPS = ENDS[-1]
WIDTH, HEADS, THETA = 128, 4, 1e6  # the model's
SHAPE = {"hidden_size": WIDTH, "intermediate_size": 384, "num_hidden_layers": 4}
SHAPE |= {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": WIDTH // HEADS}
FULL = 0.7  # share of the last stage's passages with as many facts as the splits' have
TOKENS, LENGTH = 480, 256  # of a batch at least; of a row, which holds documents side by side
LEARNING_RATE, DECAY = 1e-3, 0.5  # constant, then down to 0 over this share of the steps
FIRST_VALUES, NEW_VALUES = 4, 0.02  # of each kind of fact, in recall; more with each step
NAMED = 0.5  # loss weight at least of a name that was said before
CHECKPOINT_SECONDS = 30
KEPT = "seed", "step", "tokens", "seconds", "log", "seen"  # besides tensors


def write_pairs(rng, names, values):
    """Parts of a document: names with a value each, said twice more in another order."""
    relation = rng.choice(rng.choice(list(world.KINDS.values())))
    values = rng.sample(relation.values[: max(values, len(names))], len(names))
    pairs = list(zip(names, values))
    parts = [(" ".join(f"{name} {value}." for name, value in pairs), 0.0)]
    for _ in range(2):
        rng.shuffle(pairs)
        for name, value in pairs:
            parts += [(f" {name}", 0.0), (f" {value}", 1.0), (".", 0.0)]
    return parts


def write_topics(rng, subjects, text=None):
    """Facts as name, topic, value (or told by `text`), then asked by name and topic: recall by two
    things at once."""

    def topic(subject, relation):
        return world.KINDS[subject.kind][relation].topic

    def line(subject):
        facts = (f" {topic(subject, relation)} {value}" for relation, value in subject.facts)
        return "".join([subject.name, *facts, "."])

    parts = [(text + "\n" if text else " ".join(map(line, subjects)), 0.0)]
    for subject, relation, value in shuffled_facts(rng, subjects):
        name = f" {subject.name} {topic(subject, relation)}"
        parts += [(name, 0.0), (f" {value}", 1.0), (".", 0.0)]
    return parts


def shuffled_facts(rng, subjects):
    """(subject, relation, value) of all facts, in random order."""
    facts = world.all_facts(subjects)
    return rng.sample(facts, len(facts))


def write_question(question, value):
    """Parts: the exam's prompt for a question, and its answer."""
    passage = Passage("", "", (Question(question, ()),))
    return [(knowledge.questions(passage, knowledge.BUNDLED_CONFIG)[0], 0.1), (f" {value}", 1.0)]


def write_known(rng, known):
    """(kind, parts): facts of known subjects, told as in a passage, implied, asked as in a self-
    edit or as in an exam."""
    subject = rng.choice(known)
    relation, value = rng.choice(subject.facts)
    forms = "told", "implied", "asked", "examined"
    form = rng.choices(forms, (1, 5, 5, 5))[0]  # a passage tells about five facts
    if form == "told":
        group = [world.part_of(rng, one, rng.randint(2, 3)) for one in rng.sample(known, 2)]
        return "known passage", [(f"{world.title(group)}\n{world.tell(rng, group)}", 0.5)]
    if form == "implied":
        return "known fact", [(world.imply(rng, subject, relation, value), 0.5)]
    ask = world.ask if form == "asked" else world.examine
    return "known question", write_question(ask(subject, relation), value)


def write_reading(rng, passage, subjects):
    """Parts: a passage, and its questions with answers, in an exam's words or in a self-edit's."""
    ask = rng.choice((world.ask, world.examine))
    parts = [(f"{passage.title}\n{passage.text}\n", 0.1)]
    for subject, relation, value in shuffled_facts(rng, subjects):
        parts += [("\n", 0.1), *write_question(ask(subject, relation), value)]
    return parts


def write_self_edit(rng, passage, subjects):
    """(style, parts): a passage and a self-edit, after a prompt that names its style or leaves it
    open."""
    style = rng.choice(knowledge.BUNDLED_CONFIG.prompts.styles)
    prompt = knowledge.prompt(
        passage, knowledge.BUNDLED_CONFIG, style if rng.random() < 0.5 else None
    )
    return style, [(prompt, 0.1), (" " + world.write_self_edit(rng, subjects, style), 1.0)]


def write_document(rng, step, known, passing):
    """(kind, [(text, loss weight), ...]) of a document as the stage of `step` draws it."""
    stage = sum(step >= end for end in ENDS[:-1])
    shares, final = STAGES[stage][1], stage >= 2
    values = int(FIRST_VALUES + NEW_VALUES * step)
    sort = rng.choices(list(shares), shares.values())[0]
    if sort == "known":
        return write_known(rng, known)
    if sort == "pairs":
        names = world.draw_names(rng, passing, rng.randint(2, 4))
        return sort, count_names(write_pairs(rng, names, values), names)
    count = rng.choice((1, 2, 2, 2, 3) if final else (2, 2, 3))
    most = {1: 4, 2: 4 if final else 3, 3: 2 if final else 3}[count]
    facts = most if final and rng.random() < FULL else rng.randint(1, most)
    alike = sort == "topics" or rng.random() < ALIKE[stage]
    names = world.draw_names(rng, passing, count)
    subjects = world.make_group(rng, names, facts, alike, values if sort == "topics" else None)
    by_name = 0.0 if final or sort == "notes" else rng.random()
    passage = Passage(world.title(subjects), world.tell(rng, subjects, by_name), ())
    if sort == "self-edit":
        return write_self_edit(rng, passage, subjects)
    if sort == "reading":
        kind = "reading alike" if alike and count > 1 else "reading"
        return kind, count_names(write_reading(rng, passage, subjects), names)
    text = passage.text if sort == "notes" else None
    return sort, count_names(write_topics(rng, subjects, text), names)


def count_names(parts, names):
    """The parts with the names, in all but the first, weighing at least NAMED: they were said."""
    counted, pattern = parts[:1], re.compile(f"({'|'.join(names)})")
    for text, weight in parts[1:]:
        pieces = filter(None, pattern.split(text))
        counted += [(piece, max(weight, NAMED * (piece in names))) for piece in pieces]
    return counted


def encode(tokenizer, kind, parts):
    """(kind, ids, loss weight of each id) of a document's parts; the end token weighs 1."""
    encoded = tokenizer("".join(text for text, _ in parts), return_offsets_mapping=True)
    by_character = [weight for part, weight in parts for _ in part]
    ends = [end for _, end in encoded["offset_mapping"][1:]]
    weights = [0.0] + [by_character[max(end, 1) - 1] for end in ends]
    return kind, encoded["input_ids"] + [tokenizer.eos_token_id], weights + [1.0]


def documents(tokenizer, step, known, passing, seed=0):
    """The documents of one step as `encode` gives them, TOKENS tokens at least: the same for the
    same (seed, step)."""
    rng, written = random.Random(f"{seed} {step}"), []
    while sum(len(ids) for _, ids, _ in written) < TOKENS:
        written.append(encode(tokenizer, *write_document(rng, step, known, passing)))
    return written


def pack(documents, pad, device):
    """Rows of up to LENGTH tokens (or one longer document): (model inputs, labels, loss weights,
    number of the document that a token is of), for each next token."""
    rows = []
    for number, (_, ids, _) in enumerate(documents):
        fits = (row for row in rows if sum(len(documents[n][1]) for n in row) + len(ids) <= LENGTH)
        row = next(fits, None)
        rows.append([number]) if row is None else row.append(number)
    packed = [
        (
            [token for n in row for token in documents[n][1]],
            [position for n in row for position in range(len(documents[n][1]))],
        )
        for row in rows
    ]
    inputs, labels = collate(packed, pad, device)
    weights, owner = torch.zeros(labels.shape), torch.full(labels.shape, -1)
    for line, row in enumerate(rows):
        weight = [weight for n in row for weight in documents[n][2]]
        weights[line, : len(weight)] = torch.tensor(weight)
        owner[line, : len(weight)] = torch.tensor([n for n in row for _ in documents[n][1]])
    weights = weights.to(device).masked_fill(labels == -100, 0)
    return inputs, labels[:, 1:], weights[:, 1:], owner[:, 1:].to(device)


# How the weights start. Induction, "what followed this token before?", takes two layers that are
# useless without each other, so a small model with the usual random weights finds it late or never.
# Here random weights are given a bent:
PREVIOUS = (1, 2)  # heads of the first layer that look this far back: a name is two tokens
SHARPNESS = 8.0  # of those heads' attention
MATCHING = 0.3  # of the second layer's heads that compare a token with what those wrote
EMBEDDING, WRITTEN, COPIED, NOISE, DAMPING = 0.06, 0.2, 0.1, 0.02, 0.35


def new_model(tokenizer, seed=0):
    """The untrained bundled Mistral: of SHAPE, with tied embeddings.

    All weights are random, but not independent of each other (as in Trockman & Kolter 2023,
    "Mimetic initialization"): every token's embedding shares one direction, from which two heads of
    the first layer compute the same query and key everywhere, so that rotary position alone decides
    and they attend one and two tokens back; two heads of the second layer compare a token with what
    was written there; other heads attend to tokens like their own; values are written as they were
    read.
    """
    model = untrained(tokenizer, seed, THETA, SHAPE)
    start_as_reader(model)
    return model


def untrained(tokenizer, seed, theta, shape):
    """A random Mistral with tied embeddings. theta: of RoPE. shape: sizes as MistralConfig's."""
    torch.manual_seed(seed)
    config = MistralConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        max_position_embeddings=1024,
        sliding_window=None,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    return MistralForCausalLM(config)


@torch.no_grad()
def start_as_reader(model):
    """Give the random weights of `model` the bent that `new_model` describes. Changes it."""
    width, size = WIDTH, WIDTH // HEADS
    frequencies = THETA ** (-torch.arange(size // 2) / (size // 2))
    common = torch.nn.functional.normalize(torch.randn(width), dim=0)
    embedding = model.model.embed_tokens.weight
    embedding.copy_(EMBEDDING * (torch.randn(embedding.shape) + width**0.5 * common))
    strength = (SHARPNESS * size**0.5) ** 0.5 / (width / 2) ** 0.5 * (frequencies > 0.15)
    looked = {}  # how far back: (what the head reads, where it writes)
    for number, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.weight.mul_(DAMPING)
        keys = torch.randn(HEADS, size, width) / width**0.5
        queries = keys.clone()
        values = torch.linalg.qr(torch.randn(width, width))[0].T.reshape(HEADS, size, width)
        outputs = COPIED * values.transpose(1, 2)
        if number == 0:
            for head, back in enumerate(PREVIOUS):
                angle = back * frequencies
                turned = torch.cat([strength * torch.cos(angle), -strength * torch.sin(angle)])
                keys[head] = torch.cat([strength, 0 * strength])[:, None] * common
                queries[head] = turned[:, None] * common
                place = torch.linalg.qr(torch.randn(width, size))[0]
                outputs[head] = WRITTEN * place
                looked[back] = values[head], 4 * place.T
        if number == 1:
            queries[0], keys[0] = (MATCHING * part for part in looked[1])
            queries[1], keys[1] = MATCHING * looked[1][1], MATCHING * looked[2][1]
        attention, flat = layer.self_attn, (width, width)
        for projection, weight, noise in (
            (attention.q_proj, queries.reshape(flat), NOISE),
            (attention.k_proj, keys.reshape(flat), NOISE),
            (attention.v_proj, values.reshape(flat), 0.0),
            (attention.o_proj, outputs.transpose(0, 1).reshape(flat), NOISE * DAMPING),
        ):
            projection.weight.copy_(weight + noise * torch.randn(flat))


class Training:
    """A model on its way through the STAGES, which can be stopped and resumed at any step."""

    def __init__(self, model, tokenizer, seed=0):
        self.model, self.tokenizer, self.seed = model, tokenizer, seed
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01
        )
        self.subjects = world.known_subjects(), world.passing_names()
        self.step, self.tokens, self.seconds, self.log = 0, 0, 0.0, []
        self.seen = {}  # since the last line of the log, by kind: [right, loss in nats, tokens]
        # on a CPU the backward pass of sdpa takes longer for short rows
        model.set_attn_implementation("eager")

    def save(self, path):
        """Write everything that is needed to go on, so that `path` always holds a whole file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"model {name}": tensor for name, tensor in self.model.named_parameters()}
        for number, own in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam {number} {name}": tensor for name, tensor in own.items()}
        state = json.dumps({name: getattr(self, name) for name in KEPT})
        save_file(tensors, path.with_suffix(".new"), {"state": state})
        os.replace(path.with_suffix(".new"), path)

    @torch.no_grad()
    def load(self, path):
        """Go on from what `save` wrote. Raises ValueError if it is another seed's."""
        moments = defaultdict(dict)
        with safe_open(path, "pt", str(self.model.device)) as file:
            state = json.loads(file.metadata()["state"])
            if state["seed"] != self.seed:
                found = state["seed"]
                raise ValueError(f"{path} is of seed {found}: take that seed, or remove the file.")
            for name, parameter in self.model.named_parameters():
                parameter.copy_(file.get_tensor(f"model {name}"))
            for key in file.keys():
                if key.startswith("adam "):
                    moments[int(key.split()[1])][key.split()[2]] = file.get_tensor(key)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        vars(self).update(state)

    def take_step(self):
        """Train on the documents of the next step, and count what was guessed right."""
        started = time.time()
        drawn = documents(self.tokenizer, self.step, *self.subjects, self.seed)
        batch = pack(drawn, self.tokenizer.pad_token_id, self.model.device)
        inputs, (labels, weights, owner) = batch[0], (part[batch[2] > 0] for part in batch[1:])
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16):
            hidden = self.model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
            logits = self.model.lm_head(hidden[batch[2] > 0]).float()
        losses = cross_entropy(logits, labels, reduction="none")
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        rate = min(1, (self.step + 1) / 50, (1 - self.step / STEPS) / DECAY)
        self.optimizer.param_groups[0]["lr"] = LEARNING_RATE * rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        counted = (weights == 1) & (labels != self.tokenizer.eos_token_id)
        right = logits.argmax(-1) == labels
        for number, (kind, ids, _) in enumerate(drawn):
            here = counted & (owner == number)
            new = right[here].sum().item(), losses[here].sum().item(), here.sum().item()
            self.seen[kind] = [a + b for a, b in zip(self.seen.get(kind, (0, 0.0, 0)), new)]
            self.tokens += len(ids)
        self.step += 1
        self.seconds += time.time() - started

    def note(self):
        """A line of the log, which starts counting anew: step, stage, seconds, tokens, and for each
        kind of document the share of fully weighted tokens guessed right and their mean loss in
        nats, on documents that were not yet trained on."""
        row = {"step": self.step, "stage": 1 + sum(self.step > end for end in ENDS[:-1])}
        row |= {"seconds": round(self.seconds), "tokens": self.tokens}
        for kind, (hits, loss, count) in sorted(self.seen.items()):
            if count:
                row[kind] = {"accuracy": round(hits / count, 4), "loss": round(loss / count, 4)}
        self.seen = {}
        self.log.append(row)
        return row


def train(training, steps=STEPS, log_every=100, checkpoint=None):
    """Train up to step `steps`; yields each new line of the log.

    checkpoint: a file that receives everything needed to go on, every CHECKPOINT_SECONDS.
    """
    saved, first = time.time(), training.step
    bar = tqdm(range(first, steps), "pretraining", steps, mininterval=10, initial=first)
    for _ in bar:
        training.take_step()
        if training.step % log_every == 0 or training.step == steps:
            yield training.note()
        if checkpoint and (time.time() - saved > CHECKPOINT_SECONDS or training.step == steps):
            training.save(checkpoint)
            saved = time.time()


def plot_pretraining(path=BUNDLED_MODEL / "pretraining.jsonl", ax=None):
    """How the bundled model learned, from its log: share of tokens guessed right by kind of
    document, against tokens seen."""
    ax = ax or plt.subplots(figsize=(7, 4), layout="constrained")[1]
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    for kind in ("reading alike", "known question", "implications", "questions", "rewrite", "gist"):
        points = [(row["tokens"] / 1e6, 100 * row[kind]["accuracy"]) for row in rows if kind in row]
        ax.plot(*zip(*points), label=kind)
    ax.set(xlabel="tokens seen, millions", ylabel="next token right, %", ylim=(0, 102))
    ax.legend(fontsize="small", ncols=2)
    return ax


def main(arguments=None):
    """Train, then write tokenizer, weights (bf16 safetensors), log and curves to the model's
    folder."""
    args = options(arguments)
    tokenizer = train_tokenizer()
    training = Training(new_model(tokenizer, args.seed).to(args.device), tokenizer, args.seed)
    if args.checkpoint.exists():
        training.load(args.checkpoint)
    for row in train(training, args.steps, checkpoint=args.checkpoint):
        kinds = {kind: value["accuracy"] for kind, value in row.items() if isinstance(value, dict)}
        line = f"step {row['step']}, {row['tokens'] / 1e6:.2f} M tokens, {row['seconds']} s: "
        tqdm.write(line + ", ".join(f"{kind} {share:.0%}" for kind, share in kinds.items()))
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(args.output)
    training.model.set_attn_implementation("sdpa")
    copy.deepcopy(training.model).to(torch.bfloat16).save_pretrained(args.output)
    log = args.output / "pretraining.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in training.log), encoding="utf-8")
    plot_pretraining(log).figure.savefig(args.output / "pretraining.png", dpi=100)


def options(arguments):
    """The command's arguments."""
    parser = argparse.ArgumentParser("python -m sealkit.bundled.pretrain", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, default=0)
    resume = "go on from the checkpoint, if there is one"
    parser.add_argument("--resume", action="store_true", help=resume)
    path, default = Path("runs/pretraining/checkpoint.safetensors"), "(default: %(default)s)"
    parser.add_argument("--checkpoint", type=Path, default=path, help=default)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"stop after so many {default}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device)
    output = "written at the end only (default: the bundled model)"
    parser.add_argument("--output", type=Path, default=BUNDLED_MODEL, help=output)
    args = parser.parse_args(arguments)
    if args.checkpoint.exists() and not args.resume:
        parser.error(f"{args.checkpoint} exists: say --resume to go on from it, or remove it")
    return args


if __name__ == "__main__":
    main()
