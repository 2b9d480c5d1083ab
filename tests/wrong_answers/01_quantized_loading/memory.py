# WRONG: keys and values as wide as queries | keys and values are counted as wide
def count(config):
    hidden, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    layer = 4 * hidden * heads + 3 * hidden * config.intermediate_size
    return config.num_hidden_layers * layer, 2 * config.vocab_size * hidden + (2 * config.num_hidden_layers + 1) * hidden
def nf4_bytes(inside, outside):
    return inside * (4 + 8 / 64 + 32 / (64 * 256)) / 8 + 2 * outside

# WRONG: one layer | one layer
def count(config):
    hidden = config.hidden_size
    width, shared = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer = 2 * hidden * (width + shared) + 3 * hidden * config.intermediate_size
    return layer, 2 * config.vocab_size * hidden + (2 * config.num_hidden_layers + 1) * hidden
def nf4_bytes(inside, outside):
    return inside * (4 + 8 / 64 + 32 / (64 * 256)) / 8 + 2 * outside

# WRONG: two matrices in the MLP | gate, up and down
def count(config):
    hidden = config.hidden_size
    width, shared = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer = 2 * hidden * (width + shared) + 2 * hidden * config.intermediate_size
    return layer * config.num_hidden_layers, 2 * config.vocab_size * hidden + (2 * config.num_hidden_layers + 1) * hidden
def nf4_bytes(inside, outside):
    return inside * (4 + 8 / 64 + 32 / (64 * 256)) / 8 + 2 * outside

# WRONG: no output head | embeddings or output head are missing
def count(config):
    hidden = config.hidden_size
    width, shared = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer = 2 * hidden * (width + shared) + 3 * hidden * config.intermediate_size
    return layer * config.num_hidden_layers, config.vocab_size * hidden + (2 * config.num_hidden_layers + 1) * hidden
def nf4_bytes(inside, outside):
    return inside * (4 + 8 / 64 + 32 / (64 * 256)) / 8 + 2 * outside

# WRONG: hidden_size for the width of all heads | num_attention_heads × head_dim wide
def count(config):
    hidden = config.hidden_size
    shared = config.num_key_value_heads * config.head_dim
    layer = 2 * hidden * (hidden + shared) + 3 * hidden * config.intermediate_size
    return layer * config.num_hidden_layers, 2 * config.vocab_size * hidden + (2 * config.num_hidden_layers + 1) * hidden
def nf4_bytes(inside, outside):
    return inside * (4 + 8 / 64 + 32 / (64 * 256)) / 8 + 2 * outside

# WRONG: no scales | the scales need room
def count(config):
    hidden = config.hidden_size
    width, shared = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer = 2 * hidden * (width + shared) + 3 * hidden * config.intermediate_size
    return layer * config.num_hidden_layers, 2 * config.vocab_size * hidden + (2 * config.num_hidden_layers + 1) * hidden
def nf4_bytes(inside, outside):
    return inside * 4 / 8 + 2 * outside

# WRONG: scales in 32 bits | without double quantization
def count(config):
    hidden = config.hidden_size
    width, shared = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer = 2 * hidden * (width + shared) + 3 * hidden * config.intermediate_size
    return layer * config.num_hidden_layers, 2 * config.vocab_size * hidden + (2 * config.num_hidden_layers + 1) * hidden
def nf4_bytes(inside, outside):
    return inside * (4 + 32 / 64) / 8 + 2 * outside

# WRONG: everything in 4 bits | only the linear layers of the decoder
def count(config):
    hidden = config.hidden_size
    width, shared = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer = 2 * hidden * (width + shared) + 3 * hidden * config.intermediate_size
    return layer * config.num_hidden_layers, 2 * config.vocab_size * hidden + (2 * config.num_hidden_layers + 1) * hidden
def nf4_bytes(inside, outside):
    return (inside + outside) * (4 + 8 / 64 + 32 / (64 * 256)) / 8
