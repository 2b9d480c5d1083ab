# WRONG: largest value, not magnitude | abs\(\)
def quantize(W, levels, block=64):
    blocks = W.reshape(-1, block)
    scales = blocks.amax(1)
    return torch.bucketize(blocks / scales[:, None], (levels[1:] + levels[:-1]) / 2), scales

# WRONG: one scale for the matrix | whole matrix
def quantize(W, levels, block=64):
    scale = W.abs().max()
    return torch.bucketize(W.reshape(-1, block) / scale, (levels[1:] + levels[:-1]) / 2), scale

# WRONG: the matrix's scale for every block | each block has its own
def quantize(W, levels, block=64):
    blocks = W.reshape(-1, block)
    return torch.bucketize(blocks / W.abs().max(), (levels[1:] + levels[:-1]) / 2), W.abs().max().repeat(len(blocks))

# WRONG: blocks down the columns | columns
def quantize(W, levels, block=64):
    blocks = W.T.reshape(-1, block)
    scales = blocks.abs().amax(1)
    return torch.bucketize(blocks / scales[:, None], (levels[1:] + levels[:-1]) / 2), scales

# WRONG: rounds down | round down
def quantize(W, levels, block=64):
    blocks = W.reshape(-1, block)
    scales = blocks.abs().amax(1)
    return torch.bucketize(blocks / scales[:, None], levels, right=True) - 1, scales

# WRONG: rounds up | round up
def quantize(W, levels, block=64):
    blocks = W.reshape(-1, block)
    scales = blocks.abs().amax(1)
    return torch.bucketize(blocks / scales[:, None], levels), scales

# WRONG: forgets to divide by the scale | divide each block by its scale
def quantize(W, levels, block=64):
    blocks = W.reshape(-1, block)
    return (blocks[:, :, None] - levels).abs().argmin(-1), blocks.abs().amax(1)

# WRONG: 64 in the code | is 64 written
def quantize(W, levels, block=64):
    blocks = W.reshape(-1, 64)
    scales = blocks.abs().amax(1)
    return torch.bucketize(blocks / scales[:, None], (levels[1:] + levels[:-1]) / 2), scales
