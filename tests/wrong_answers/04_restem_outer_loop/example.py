# WRONG: trains on the prompt | counts the prompt
def example(tokenizer, passage, edit):
    ids = tokenizer(f"{passage.title}\n{passage.text}\n\nNotes: {edit}")["input_ids"] + [tokenizer.eos_token_id]
    return torch.tensor(ids), torch.tensor(ids)

# WRONG: no end token | never learn to stop
def example(tokenizer, passage, edit):
    prompt = f"{passage.title}\n{passage.text}\n\nNotes:"
    ids, start = tokenizer(f"{prompt} {edit}")["input_ids"], len(tokenizer(prompt)["input_ids"])
    return torch.tensor(ids), torch.tensor([-100] * start + ids[start:])

# WRONG: end token masked | never learn to stop
def example(tokenizer, passage, edit):
    prompt = f"{passage.title}\n{passage.text}\n\nNotes:"
    ids, start = tokenizer(f"{prompt} {edit}")["input_ids"], len(tokenizer(prompt)["input_ids"])
    return torch.tensor(ids + [tokenizer.eos_token_id]), torch.tensor([-100] * start + ids[start:] + [-100])

# WRONG: no cue | 'Notes:' is missing
def example(tokenizer, passage, edit):
    prompt = f"{passage.title}\n{passage.text}\n\n"
    ids = tokenizer(f"{prompt} {edit}")["input_ids"] + [tokenizer.eos_token_id]
    start = len(tokenizer(prompt)["input_ids"])
    return torch.tensor(ids), torch.tensor([-100] * start + ids[start:])

# WRONG: the cue is learned | the cue is prompt too
def example(tokenizer, passage, edit):
    prompt = f"{passage.title}\n{passage.text}\n\nNotes:"
    ids = tokenizer(f"{prompt} {edit}")["input_ids"] + [tokenizer.eos_token_id]
    start = len(tokenizer(f"{passage.title}\n{passage.text}\n\n")["input_ids"])
    return torch.tensor(ids), torch.tensor([-100] * start + ids[start:])

# WRONG: mask one too long | mask is too long
def example(tokenizer, passage, edit):
    prompt = f"{passage.title}\n{passage.text}\n\nNotes:"
    ids = tokenizer(f"{prompt} {edit}")["input_ids"] + [tokenizer.eos_token_id]
    start = len(tokenizer(prompt)["input_ids"]) + 1
    return torch.tensor(ids), torch.tensor([-100] * start + ids[start:])

# WRONG: no title | title or text are missing
def example(tokenizer, passage, edit):
    prompt = f"{passage.text}\n\nNotes:"
    ids = tokenizer(f"{prompt} {edit}")["input_ids"] + [tokenizer.eos_token_id]
    start = len(tokenizer(prompt)["input_ids"])
    return torch.tensor(ids), torch.tensor([-100] * start + ids[start:])
