# WRONG: first neighbour in the lower bits | halves are swapped
def pack(codes):
    flat = codes.flatten()
    return (flat[1::2] << 4 | flat[0::2]).to(torch.uint8)

# WRONG: first half with second half | pair neighbours
def pack(codes):
    first, second = codes.flatten().chunk(2)
    return (first << 4 | second).to(torch.uint8)

# WRONG: no shift | shift the first by four bits
def pack(codes):
    flat = codes.flatten()
    return (flat[0::2] + flat[1::2]).to(torch.uint8)

# WRONG: pairs rows | flatten first
def pack(codes):
    return (codes[0::2] << 4 | codes[1::2]).to(torch.uint8)

# WRONG: leaves 64-bit integers | convert to torch.uint8
def pack(codes):
    flat = codes.flatten()
    return flat[0::2] * 16 + flat[1::2]
