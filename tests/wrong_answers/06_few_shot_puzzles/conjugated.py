# WRONG: the wrong way round | wrong way round
def conjugated(rule, change, undo):
    return lambda row: undo(rule(change(row)))

def same(rule, other, rows):
    return all(rule(row) == other(row) for row in rows)

# WRONG: does not undo first | undo first
def conjugated(rule, change, undo):
    return lambda row: change(rule(row))

def same(rule, other, rows):
    return all(rule(row) == other(row) for row in rows)

# WRONG: does not change the output | output is to be changed
def conjugated(rule, change, undo):
    return lambda row: rule(undo(row))

def same(rule, other, rows):
    return all(rule(row) == other(row) for row in rows)

# WRONG: undoes again what it changed | unchanged: undo, rule, change
def conjugated(rule, change, undo):
    return lambda row: undo(change(rule(row)))

def same(rule, other, rows):
    return all(rule(row) == other(row) for row in rows)

# WRONG: a row instead of a rule | return a function
def conjugated(rule, change, undo):
    return change(rule(undo((1, 2, 3, 4, 5, 6))))

def same(rule, other, rows):
    return all(rule(row) == other(row) for row in rows)

# WRONG: one row that agrees is enough | every row counts
def conjugated(rule, change, undo):
    return lambda row: change(rule(undo(row)))

def same(rule, other, rows):
    return any(rule(row) == other(row) for row in rows)

# WRONG: looks at the first row alone | every row counts
def conjugated(rule, change, undo):
    return lambda row: change(rule(undo(row)))

def same(rule, other, rows):
    return rule(rows[0]) == other(rows[0])

# WRONG: compares the functions | compare what they make
def conjugated(rule, change, undo):
    return lambda row: change(rule(undo(row)))

def same(rule, other, rows):
    return rule == other
