# WRONG: measures the outlier as well | measure the 63 alone
def error_of_others(block, outlier):
    block[0] = outlier
    restored = dequantize(*quantize(block, theirs), theirs, block.shape)
    return ((block - restored).norm() / block.norm()).item()
