# WRONG: does not turn the answers back | turn the answers back
def vote(answers, undo):
    seen = [row for row in answers if row is not None]
    return max(seen, key=seen.count, default=None)

# WRONG: counts first and turns back then | turn the answers back|two views say
def vote(answers, undo):
    seen = [row for row in answers if row is not None]
    row = max(seen, key=seen.count, default=None)
    return None if row is None else undo[answers.index(row)](row) if seen.count(row) > 1 else row

# WRONG: always the first view | also if not the first
def vote(answers, undo):
    seen = [back(row) for row, back in zip(answers, undo) if row is not None]
    return seen[0] if seen else None

# WRONG: cell by cell | whole rows
def vote(answers, undo):
    seen = [back(row) for row, back in zip(answers, undo) if row is not None]
    return tuple(max(cells, key=cells.count) for cells in zip(*seen)) if seen else None

# WRONG: the last of equals | of equals the one that comes first
def vote(answers, undo):
    seen = [back(row) for row, back in zip(answers, undo) if row is not None]
    return max(seen[::-1], key=seen.count, default=None)

# WRONG: needs more than half of the votes | not more than half
def vote(answers, undo):
    seen = [back(row) for row, back in zip(answers, undo) if row is not None]
    for row in seen:
        if seen.count(row) > len(seen) / 2:
            return row
    return seen[0] if seen else None

# WRONG: None has a vote | None has no vote
def vote(answers, undo):
    seen = [row and back(row) for row, back in zip(answers, undo)]
    return max(seen, key=seen.count)

# WRONG: writes into the list | leave it as it is
def vote(answers, undo):
    for number, back in enumerate(undo):
        answers[number] = answers[number] and back(answers[number])
    while None in answers:
        answers.remove(None)
    best = max(answers, key=answers.count, default=None)
    answers.sort()
    return best
