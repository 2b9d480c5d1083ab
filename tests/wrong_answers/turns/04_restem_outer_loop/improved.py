# WRONG: keeps equal rewards too | as much as the passage alone is no improvement
def improved(rewards, alone):
    return [j for j, reward in enumerate(rewards) if reward >= alone]
