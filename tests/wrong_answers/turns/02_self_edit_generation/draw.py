# WRONG: adds u itself | the noise is −log\(−log u\)
def draw(logits, random):
    return (logits + torch.rand(len(logits), generator=random)).argmax()
