# WRONG: level numbers instead of levels | look up their levels
def dequantize(codes, scales, levels, shape):
    return (codes * scales[:, None]).reshape(shape)

# WRONG: scales along the wrong axis | goes with a block
def dequantize(codes, scales, levels, shape):
    return (levels[codes] * scales).reshape(shape)

# WRONG: divides by the scale | multiply
def dequantize(codes, scales, levels, shape):
    return (levels[codes] / scales[:, None]).reshape(shape)

# WRONG: keeps the blocks' shape | the shape that was asked for
def dequantize(codes, scales, levels, shape):
    return levels[codes] * scales[:, None]

# WRONG: even levels | not even
def dequantize(codes, scales, levels, shape):
    return (torch.linspace(-1, 1, 16)[codes] * scales[:, None]).reshape(shape)
