# WRONG: the mean stays | mean was not taken off
def double_quantize(scales, table):
    rest = torch.cat([scales, torch.zeros(-len(scales) % 256)])
    codes, scales8 = quantize(rest, table, block=256)
    return codes.flatten()[: len(scales)], scales8, torch.tensor(0.0)

# WRONG: a mean for each block | one mean for all
def double_quantize(scales, table):
    offset = scales.view(-1, 256).mean(1)
    codes, scales8 = quantize((scales.view(-1, 256) - offset[:, None]).flatten(), table, block=256)
    return codes.flatten(), scales8, offset

# WRONG: median instead of mean | the mean of the scales
def double_quantize(scales, table):
    offset = scales.median()
    rest = torch.cat([scales - offset, torch.zeros(-len(scales) % 256)])
    codes, scales8 = quantize(rest, table, block=256)
    return codes.flatten()[: len(scales)], scales8, offset

# WRONG: blocks of 64 | blocks of 256
def double_quantize(scales, table):
    offset = scales.mean()
    rest = torch.cat([scales - offset, torch.zeros(-len(scales) % 64)])
    codes, scales8 = quantize(rest, table)
    return codes.flatten()[: len(scales)], scales8, offset

# WRONG: fills up before the mean | take the mean first
def double_quantize(scales, table):
    filled = torch.cat([scales, torch.zeros(-len(scales) % 256)])
    offset = filled.mean()
    codes, scales8 = quantize(filled - offset, table, block=256)
    return codes.flatten()[: len(scales)], scales8, offset

# WRONG: fills up before taking off the mean | go in after the mean was taken off
def double_quantize(scales, table):
    offset = scales.mean()
    filled = torch.cat([scales, torch.zeros(-len(scales) % 256)])
    codes, scales8 = quantize(filled - offset, table, block=256)
    return codes.flatten()[: len(scales)], scales8, offset

# WRONG: keeps the codes of the zeros | cut off those of the zeros
def double_quantize(scales, table):
    offset = scales.mean()
    rest = torch.cat([scales - offset, torch.zeros(-len(scales) % 256)])
    codes, scales8 = quantize(rest, table, block=256)
    return codes.flatten(), scales8, offset
