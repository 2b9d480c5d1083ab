"""Pretrain the bundled Mistral from scratch: python -m sealkit.bundled.pretrain [--resume]

Documents are written afresh by `world.py` for every batch, so nothing but the known facts is ever seen twice. A batch
depends on (seed, step) alone, so a training that was stopped goes on to the bit where its last checkpoint was written.

Binding (whose fact is it?) is what a small model learns last. Three things make it form in minutes, not hours: weights
that start as a reader's would (`new_model`), a curriculum from key-value pairs to passages (`STAGES`), small batches.
"""

import argparse
import copy
import json
import os
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import MistralConfig, MistralForCausalLM

from ..exam import exam_prompt
from ..loading import BUNDLED_MODEL
from ..passages import Passage, Question
from ..plots import plot_pretraining
from ..self_edits import STYLES, self_edit_prompt
from . import world
from .tokenizer import train_tokenizer

STAGES = (  # (steps, share of documents of each sort)
    (500, {"pairs": 0.6, "topics": 0.4}),
    (1300, {"pairs": 0.1, "topics": 0.3, "notes": 0.3, "reading": 0.3}),
    (5200, {"pairs": 0.04, "topics": 0.04, "known": 0.5, "reading": 0.17, "self-edit": 0.25}),
)
STEPS = sum(steps for steps, _ in STAGES)
WIDTH, INNER, LAYERS, HEADS, GROUPS = 128, 384, 4, 4, 4  # the model's; groups of heads that share keys and values
TOKENS, LENGTH = 480, 256  # of a batch at least; of a row, in which documents lie side by side and none sees another
LEARNING_RATE, DECAY = 1e-3, 0.5  # constant, then down to 0 over this share of the steps
FIRST_VALUES, NEW_VALUES = 4, 0.02  # of each kind of fact, in the recall of the first steps; more with each step
CHECKPOINT_SECONDS = 30


def write_pairs(rng, names, values):
    """Names with a value each, said twice more in another order: parts of a document."""
    names = world.draw_names(rng, names, rng.randint(2, 4))
    relation = rng.choice(rng.choice(list(world.KINDS.values())))
    pairs = list(zip(names, rng.sample(relation.values[: max(values, len(names))], len(names))))
    parts = [(" ".join(f"{name} {value}." for name, value in pairs), 0.0)]
    for _ in range(2):
        rng.shuffle(pairs)
        parts += [part for name, value in pairs for part in ((f" {name}", 0.0), (f" {value}", 1.0), (".", 0.0))]
    return parts


def write_topics(rng, subjects, text=None):
    """Facts as name, topic, value (or told by `text`), then asked by name and topic: recall by two things at once."""
    def topic(subject, relation):
        return world.KINDS[subject.kind][relation].topic

    told = (" ".join([s.name, *(f"{topic(s, relation)} {value}" for relation, value in s.facts)]) + "." for s in subjects)
    parts = [(text + "\n" if text else " ".join(told), 0.0)]
    for subject, relation, value in shuffled_facts(rng, subjects):
        parts += [(f" {subject.name} {topic(subject, relation)}", 0.0), (f" {value}", 1.0), (".", 0.0)]
    return parts


def shuffled_facts(rng, subjects):
    """(subject, relation, value) of all facts, in random order."""
    facts = [(subject, *fact) for subject in subjects for fact in subject.facts]
    return rng.sample(facts, len(facts))


def write_known(rng, known):
    """(kind, parts): facts of known subjects, told as in a passage, implied, asked as in a self-edit or as in an exam."""
    subject = rng.choice(known)
    relation, value = rng.choice(subject.facts)
    form = rng.choices(("told", "implied", "asked", "examined"), (1, 5, 5, 5))[0]  # a passage tells about five facts
    if form == "told":
        group = [world.Subject(s.name, s.kind, s.reference, tuple(rng.sample(s.facts, rng.randint(2, 3)))) for s in rng.sample(known, 2)]
        return "known passage", [(f"{group[0].name} and {group[1].name}\n{world.tell(rng, group)}", 0.5)]
    if form == "implied":
        return "known fact", [(world.imply(rng, subject, relation, value), 0.5)]
    ask = world.ask if form == "asked" else world.examine
    return "known question", [(exam_prompt(None, Question(ask(subject, relation), ())), 0.1), (" " + value, 1.0)]


def write_reading(rng, passage, subjects, exams_only):
    """A passage, and its questions with answers, in an exam's words or (half of the documents) in those of a self-edit."""
    ask = world.examine if exams_only or rng.random() < 0.5 else world.ask
    parts = [(f"{passage.title}\n{passage.text}\n", 0.1)]
    for subject, relation, value in shuffled_facts(rng, subjects):
        parts += [("\n" + exam_prompt(None, Question(ask(subject, relation), ())), 0.1), (" " + value, 1.0)]
    return parts


def write_self_edit(rng, passage, subjects):
    """(style, parts): a passage and a self-edit, after a prompt that names its style or leaves it open."""
    style = rng.choice(STYLES)
    prompt = self_edit_prompt(passage, style if rng.random() < 0.5 else None)
    return style, [(prompt, 0.1), (" " + world.write_self_edit(rng, subjects, style), 1.0)]


def write_document(rng, step, known, passing):
    """(kind, [(text, loss weight), ...]) of a document as the stage of `step` draws it."""
    begun = 0
    for stage, (steps, shares) in enumerate(STAGES):
        begun += steps
        if step < begun:
            break
    values = int(FIRST_VALUES + NEW_VALUES * step)
    sort = rng.choices(list(shares), shares.values())[0]
    if sort == "pairs":
        return sort, write_pairs(rng, passing, values)
    if sort == "known":
        return write_known(rng, known)
    final = stage == len(STAGES) - 1
    count = rng.choice((1, 2, 2, 3, 3) if final else (2, 2, 3))
    facts = rng.randint(1, {1: 4, 2: 3, 3: 2 if final else 3}[count])
    alike = sort == "topics" or not final or rng.random() < 0.6
    subjects = world.make_group(rng, world.draw_names(rng, passing, count), facts, alike, values if sort == "topics" else None)
    if sort == "topics":
        return sort, write_topics(rng, subjects)
    by_name = 0.0 if final or sort == "notes" else rng.random()
    passage = Passage(" and ".join(s.name for s in subjects), world.tell(rng, subjects, by_name), ())
    if sort == "notes":
        return sort, write_topics(rng, subjects, passage.text)
    if sort == "reading":
        return "reading alike" if alike and count > 1 else "reading", write_reading(rng, passage, subjects, False)
    return write_self_edit(rng, passage, subjects)


def encode(tokenizer, documents):
    """[(kind, ids, loss weight of each id)] of documents written by `write_document`; the end token weighs 1."""
    batch = tokenizer(["".join(text for text, _ in parts) for _, parts in documents], return_offsets_mapping=True)
    encoded = []
    for (kind, parts), ids, offsets in zip(documents, batch["input_ids"], batch["offset_mapping"]):
        by_character = [weight for part, weight in parts for _ in part]
        weights = [0.0] + [by_character[max(end, 1) - 1] for _, end in offsets[1:]]
        encoded.append((kind, ids + [tokenizer.eos_token_id], weights + [1.0]))
    return encoded


def documents(tokenizer, step, known, passing, seed=0):
    """The documents of one step as `encode` gives them: at least TOKENS tokens, the same for the same (seed, step)."""
    rng, written, tokens = random.Random(f"{seed} {step}"), [], 0
    while tokens < TOKENS:
        new = encode(tokenizer, [write_document(rng, step, known, passing)])
        written += new
        tokens += len(new[0][1])
    return written


def pack(documents, pad, device):
    """Rows of up to LENGTH tokens (or one longer document): inputs, ids, loss weights, number of the document (-1: pad)."""
    rows = []
    for number, (_, ids, _) in enumerate(documents):
        row = next((row for row in rows if sum(len(documents[n][1]) for n in row) + len(ids) <= LENGTH), None)
        if row is None:
            rows.append(row := [])
        row.append(number)
    shape = len(rows), max(sum(len(documents[n][1]) for n in row) for row in rows)
    ids, weights, owner, positions = torch.full(shape, pad), torch.zeros(shape), torch.full(shape, -1), torch.zeros(shape, dtype=torch.long)
    for line, row in enumerate(rows):
        at = 0
        for number in row:
            here = (line, slice(at, at + len(documents[number][1])))
            ids[here], weights[here] = torch.tensor(documents[number][1]), torch.tensor(documents[number][2])
            owner[here], positions[here] = number, torch.arange(len(documents[number][1]))
            at = here[1].stop
    weights[positions == 0] = 0
    index = torch.arange(shape[1])
    seen = (owner[:, :, None] == owner[:, None, :]) & (index[:, None] >= index)
    mask = torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill(~seen, -1e9)[:, None]
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: tensor.to(device) for name, tensor in inputs.items()}, ids.to(device), weights.to(device), owner.to(device)


# How the weights start. Induction, "what followed this token before?", takes two layers that are useless without each
# other, so a small model with the usual random weights finds it late or never. Here random weights are given a bent:
PREVIOUS = (1, 2)        # heads of the first layer that look this far back: a name is two tokens
SHARPNESS = 8.0          # of those heads' attention
MATCHING = 0.3           # of the second layer's heads that compare a token with what those wrote
EMBEDDING, WRITTEN, COPIED, NOISE, DAMPING = 0.06, 0.2, 0.1, 0.02, 0.35


def new_model(tokenizer, seed=0):
    """The untrained bundled Mistral: LAYERS layers, WIDTH wide, tied embeddings.

    All weights are random, but not independent of each other (as in Trockman & Kolter 2023, "Mimetic initialization"):
    every token's embedding shares one direction, from which two heads of the first layer compute the same query and key
    everywhere, so that rotary position alone decides and they attend one and two tokens back; two pairs of heads of the
    second layer compare a token with what was written there; other heads attend to tokens like their own; values are
    written as they were read.
    """
    torch.manual_seed(seed)
    model = MistralForCausalLM(MistralConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=GROUPS, head_dim=WIDTH // HEADS, max_position_embeddings=1024, sliding_window=None,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    ))
    start_as_reader(model)
    return model


@torch.no_grad()
def start_as_reader(model):
    """Give the random weights of `model` the bent that `new_model` describes. Changes it."""
    config = model.config
    width, heads, groups, size = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
    share = heads // groups
    frequencies = config.rope_parameters["rope_theta"] ** (-torch.arange(size // 2) / (size // 2))
    common = torch.nn.functional.normalize(torch.randn(width), dim=0)
    embedding = model.model.embed_tokens.weight
    embedding.copy_(EMBEDDING * (torch.randn(embedding.shape) + width**0.5 * common))
    strength = (SHARPNESS * size**0.5) ** 0.5 / (width / 2) ** 0.5 * (frequencies > 0.15)
    looked = {}  # how far back: (what the head reads, where it writes)
    for number, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.weight.mul_(DAMPING)
        keys = torch.randn(groups, size, width) / width**0.5
        queries = keys.repeat_interleave(share, 0)
        values = torch.linalg.qr(torch.randn(width, groups * size))[0].T.reshape(groups, size, width)
        outputs = COPIED / share * values.repeat_interleave(share, 0).transpose(1, 2)
        if number == 0:
            for head, back in enumerate(PREVIOUS):
                turn = torch.cat([strength * torch.cos(back * frequencies), -strength * torch.sin(back * frequencies)])
                keys[head // share] = torch.cat([strength, 0 * strength])[:, None] * common
                queries[head] = turn[:, None] * common
                place = torch.linalg.qr(torch.randn(width, size))[0]
                outputs[head] = WRITTEN * place
                looked[back] = values[head // share], 4 * place.T
        if number == 1:
            for group, (query, key) in enumerate(((looked[1][0], looked[1][1]), (looked[1][1], looked[2][1]))):
                keys[group], queries[group * share : (group + 1) * share] = MATCHING * key, MATCHING * query
        attention = layer.self_attn
        for projection, weight, noise in (
            (attention.q_proj, queries.reshape(heads * size, width), NOISE), (attention.k_proj, keys.reshape(groups * size, width), NOISE),
            (attention.v_proj, values.reshape(groups * size, width), 0.0),
            (attention.o_proj, outputs.transpose(0, 1).reshape(width, heads * size), NOISE * DAMPING),
        ):
            projection.weight.copy_(weight + noise * torch.randn(weight.shape))


def train(model, tokenizer, steps=STEPS, seed=0, log_every=100, checkpoint=None):
    """Train up to step `steps` of the STAGES; yields (step, measures) each `log_every` steps, the earlier ones first.

    checkpoint: a file that receives everything needed to go on, every CHECKPOINT_SECONDS; if it exists, the training
    goes on from there. measures: stage, seconds, tokens, and for each kind of document the share of fully weighted tokens
    guessed right and their mean loss in nats, on documents not yet trained on.
    """
    known, passing, device = world.known_subjects(), world.passing_names(), model.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    state = {"step": 0, "seconds": 0.0, "tokens": 0, "log": [], "seen": {}}
    if checkpoint and checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        if state["seed"] != seed:
            raise ValueError(f"{checkpoint} is of seed {state['seed']}: take that seed, or remove the file.")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        yield from state["log"]
    seen, start, saved = defaultdict(lambda: [0, 0.0, 0], state["seen"]), time.time() - state["seconds"], time.time()
    log, tokens = list(state["log"]), state["tokens"]
    model.set_attn_implementation("eager")  # on a CPU the backward pass of sdpa takes longer for short rows
    bounds = [sum(steps for steps, _ in STAGES[: n + 1]) for n in range(len(STAGES))]
    for step in tqdm(range(state["step"], steps), desc="pretraining", mininterval=10, initial=state["step"], total=steps):
        drawn = documents(tokenizer, step, known, passing, seed)
        inputs, ids, weights, owner = pack(drawn, tokenizer.pad_token_id, device)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 50, (1 - step / STEPS) / DECAY)
        chosen = weights[:, 1:] > 0
        labels, weights, owner = ids[:, 1:][chosen], weights[:, 1:][chosen], owner[:, 1:][chosen]
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = model.lm_head(model.model(**inputs, use_cache=False).last_hidden_state[:, :-1][chosen]).float()
        losses = cross_entropy(logits, labels, reduction="none")
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        counted, right = (weights == 1) & (labels != tokenizer.eos_token_id), logits.argmax(-1) == labels
        for number, (kind, _, _) in enumerate(drawn):
            here = counted & (owner == number)
            seen[kind] = [a + b for a, b in zip(seen[kind], (right[here].sum().item(), losses[here].sum().item(), here.sum().item()))]
        tokens += sum(len(ids) for _, ids, _ in drawn)
        done = step + 1
        if done % log_every == 0 or done == steps:
            measures = {"stage": 1 + sum(step >= bound for bound in bounds), "seconds": round(time.time() - start), "tokens": tokens}
            measures |= {kind: {"accuracy": round(hits / count, 4), "loss": round(loss / count, 4)} for kind, (hits, loss, count) in sorted(seen.items()) if count}
            seen.clear()
            log.append((done, measures))
            yield done, measures
        if checkpoint and (time.time() - saved > CHECKPOINT_SECONDS or done == steps or done in bounds):
            state = {"seed": seed, "step": done, "seconds": time.time() - start, "tokens": tokens, "log": log, "seen": dict(seen),
                     "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save(state, checkpoint)
            if done in bounds:
                save(state, checkpoint.with_name(f"stage_{1 + bounds.index(done)}.pt"))
            saved = time.time()


def save(state, path):
    """Write `state` so that `path` always holds a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def main(arguments=None):
    """Train, then write tokenizer, weights (bf16 safetensors), log and curves to the model's folder."""
    parser = argparse.ArgumentParser(prog="python -m sealkit.bundled.pretrain", description="Pretrain the bundled Mistral from scratch.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/pretraining/checkpoint.pt"), help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="stop after so many (default: all %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=BUNDLED_MODEL, help="written at the end only (default: the bundled model)")
    args = parser.parse_args(arguments)
    if args.checkpoint.exists() and not args.resume:
        parser.error(f"{args.checkpoint} exists: say --resume to go on from it, or remove it")
    tokenizer = train_tokenizer()
    model = new_model(tokenizer, args.seed).to(args.device)
    rows = []
    for step, measures in train(model, tokenizer, args.steps, args.seed, checkpoint=args.checkpoint):
        rows.append({"step": step} | measures)
        shares = {kind: f"{value['accuracy']:.0%}" for kind, value in measures.items() if isinstance(value, dict)}
        tqdm.write(f"step {step}, stage {measures['stage']}, {measures['tokens'] / 1e6:.2f} M tokens, {measures['seconds']} s: "
                   + ", ".join(f"{kind} {share}" for kind, share in shares.items()))
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(args.output)
    model.set_attn_implementation("sdpa")
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(args.output)
    log = args.output / "pretraining.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plot_pretraining(log).figure.savefig(args.output / "pretraining.png", dpi=100)


if __name__ == "__main__":
    main()
