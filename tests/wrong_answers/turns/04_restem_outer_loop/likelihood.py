# WRONG: reads the logits of the token itself | logits at place i are about token i \+ 1
def log_likelihood(logits, labels):
    kept = labels != -100
    return logits.log_softmax(-1)[kept, labels[kept]].sum().item()
