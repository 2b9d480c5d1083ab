# WRONG: compares neighbours | compare with all earlier lines
def repeated(edit):
    lines = edit.split("\n")
    return sum(a == b for a, b in zip(lines, lines[1:])) / len(lines)
