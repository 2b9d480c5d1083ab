# WRONG: its own reward is in the mean | part of its own baseline
def leave_one_out(rewards):
    baseline = rewards.mean()
    advantage = rewards - baseline
    return advantage
