# WRONG: halves θ′ and forgets θ | half of θ′ alone
def averaging(learner, lessons):
    new = learner.train(lessons)
    return [{layer: (A / 2, B / 2) for layer, (A, B) in new.items()}]
