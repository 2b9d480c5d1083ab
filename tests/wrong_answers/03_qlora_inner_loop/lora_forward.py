# WRONG: forgot alpha / r | multiply it by alpha / r
def lora_forward(x, base, A, B, alpha):
    return base(x) + x @ A.T @ B.T

# WRONG: alpha without r | also divide by the rank
def lora_forward(x, base, A, B, alpha):
    return base(x) + alpha * (x @ A.T @ B.T)

# WRONG: divides by the input's width | number of rows of A
def lora_forward(x, base, A, B, alpha):
    return base(x) + alpha / A.shape[1] * (x @ A.T @ B.T)

# WRONG: divides by the output's width | number of rows of A
def lora_forward(x, base, A, B, alpha):
    return base(x) + alpha / len(B) * (x @ A.T @ B.T)

# WRONG: the update alone | the update alone
def lora_forward(x, base, A, B, alpha):
    return alpha / len(A) * (x @ A.T @ B.T)

# WRONG: scales the frozen layer too | scales the update alone
def lora_forward(x, base, A, B, alpha):
    return alpha / len(A) * (base(x) + x @ A.T @ B.T)
