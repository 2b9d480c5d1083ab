# WRONG: whole model in the optimizer | frozen 4-bit weights are in the optimizer
def adapter_optimizer(policy, learning_rate=4e-3):
    return torch.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=0.0)
def sft_step(policy, optimizer, batch):
    loss = policy(**batch).loss
    optimizer.zero_grad(), loss.backward(), optimizer.step()
    return loss.item()

# WRONG: whatever is trainable | embeddings would be trained
def adapter_optimizer(policy, learning_rate=4e-3):
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.0)
def sft_step(policy, optimizer, batch):
    loss = policy(**batch).loss
    optimizer.zero_grad(), loss.backward(), optimizer.step()
    return loss.item()

# WRONG: only B | A matrices are not trained
def adapter_optimizer(policy, learning_rate=4e-3):
    lora = [parameter for name, parameter in policy.named_parameters() if "lora_B" in name]
    return torch.optim.AdamW(lora, lr=learning_rate, weight_decay=0.0)
def sft_step(policy, optimizer, batch):
    loss = policy(**batch).loss
    optimizer.zero_grad(), loss.backward(), optimizer.step()
    return loss.item()

# WRONG: default weight decay | weight decay
def adapter_optimizer(policy, learning_rate=4e-3):
    return torch.optim.AdamW([p for name, p in policy.named_parameters() if "lora_" in name], lr=learning_rate)
def sft_step(policy, optimizer, batch):
    loss = policy(**batch).loss
    optimizer.zero_grad(), loss.backward(), optimizer.step()
    return loss.item()

# WRONG: no zero_grad | gradients of the step before
def adapter_optimizer(policy, learning_rate=4e-3):
    lora = [parameter for name, parameter in policy.named_parameters() if "lora_" in name]
    return torch.optim.AdamW(lora, lr=learning_rate, weight_decay=0.0)
def sft_step(policy, optimizer, batch):
    loss = policy(**batch).loss
    loss.backward(), optimizer.step()
    return loss.item()

# WRONG: zero_grad between backward and step | wipes the gradients out
def adapter_optimizer(policy, learning_rate=4e-3):
    lora = [parameter for name, parameter in policy.named_parameters() if "lora_" in name]
    return torch.optim.AdamW(lora, lr=learning_rate, weight_decay=0.0)
def sft_step(policy, optimizer, batch):
    loss = policy(**batch).loss
    loss.backward(), optimizer.zero_grad(), optimizer.step()
    return loss.item()

# WRONG: no step | nothing moved
def adapter_optimizer(policy, learning_rate=4e-3):
    lora = [parameter for name, parameter in policy.named_parameters() if "lora_" in name]
    return torch.optim.AdamW(lora, lr=learning_rate, weight_decay=0.0)
def sft_step(policy, optimizer, batch):
    loss = policy(**batch).loss
    optimizer.zero_grad(), loss.backward()
    return loss.item()

# WRONG: returns the tensor | return loss.item
def adapter_optimizer(policy, learning_rate=4e-3):
    lora = [parameter for name, parameter in policy.named_parameters() if "lora_" in name]
    return torch.optim.AdamW(lora, lr=learning_rate, weight_decay=0.0)
def sft_step(policy, optimizer, batch):
    loss = policy(**batch).loss
    optimizer.zero_grad(), loss.backward(), optimizer.step()
    return loss

# WRONG: climbs | the loss rose
def adapter_optimizer(policy, learning_rate=4e-3):
    lora = [parameter for name, parameter in policy.named_parameters() if "lora_" in name]
    return torch.optim.AdamW(lora, lr=learning_rate, weight_decay=0.0)
def sft_step(policy, optimizer, batch):
    loss = policy(**batch).loss
    optimizer.zero_grad(), (-loss).backward(), optimizer.step()
    return loss.item()
