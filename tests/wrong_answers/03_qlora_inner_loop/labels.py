# WRONG: trains on the prompt | counts the prompt
def make_labels(ids, attention_mask, prompt_lengths):
    return ids.masked_fill(attention_mask == 0, -100)

# WRONG: trains on the pads | counts the pads
def make_labels(ids, attention_mask, prompt_lengths):
    return ids.masked_fill(torch.arange(ids.shape[1]) < prompt_lengths[:, None], -100)

# WRONG: masks every end token | end token is masked
def make_labels(ids, attention_mask, prompt_lengths):
    prompt = torch.arange(ids.shape[1]) < prompt_lengths[:, None]
    return ids.masked_fill(prompt | (ids == 1), -100)

# WRONG: shifts the labels | shifted
def make_labels(ids, attention_mask, prompt_lengths):
    prompt = torch.arange(ids.shape[1]) < prompt_lengths[:, None]
    labels = ids.masked_fill(prompt | (attention_mask == 0), -100)
    return torch.cat([labels[:, 1:], torch.full((len(ids), 1), -100)], dim=1)

# WRONG: 0 instead of -100 | left out means -100
def make_labels(ids, attention_mask, prompt_lengths):
    prompt = torch.arange(ids.shape[1]) < prompt_lengths[:, None]
    return ids.masked_fill(prompt | (attention_mask == 0), 0)

# WRONG: one token of the prompt too few | last token of the prompt
def make_labels(ids, attention_mask, prompt_lengths):
    prompt = torch.arange(ids.shape[1]) < prompt_lengths[:, None] - 1
    return ids.masked_fill(prompt | (attention_mask == 0), -100)

# WRONG: one token too many | first token after the prompt
def make_labels(ids, attention_mask, prompt_lengths):
    prompt = torch.arange(ids.shape[1]) <= prompt_lengths[:, None]
    return ids.masked_fill(prompt | (attention_mask == 0), -100)

# WRONG: the longest prompt for all rows | a prompt length of its own
def make_labels(ids, attention_mask, prompt_lengths):
    prompt = torch.arange(ids.shape[1]) < prompt_lengths.max()
    return ids.masked_fill(prompt | (attention_mask == 0), -100)

# WRONG: writes into the ids | work on a copy
def make_labels(ids, attention_mask, prompt_lengths):
    ids[torch.arange(ids.shape[1]) < prompt_lengths[:, None]] = -100
    ids[attention_mask == 0] = -100
    return ids
