# WRONG: a count | is a count
def coverage(edit, passage):
    return sum(any(sealkit.grade(line, question.answers) for line in edit.split("\n")) for question in passage.questions)

# WRONG: divides by the lines | not by that of the self-edit's lines
def coverage(edit, passage):
    return sum(any(sealkit.grade(line, question.answers) for line in edit.split("\n")) for question in passage.questions) / len(edit.split("\n"))

# WRONG: plain substring | plain `in`
def coverage(edit, passage):
    return sum(any(answer in edit for answer in q.answers) for q in passage.questions) / len(passage.questions)

# WRONG: the first answer only | any one of a question's answers
def coverage(edit, passage):
    return sum(any(sealkit.grade(line, q.answers[0]) for line in edit.split("\n")) for q in passage.questions) / len(passage.questions)

# WRONG: all answers have to be there | any one of a question's answers
def coverage(edit, passage):
    return sum(all(any(sealkit.grade(line, a) for line in edit.split("\n")) for a in q.answers) for q in passage.questions) / len(passage.questions)

# WRONG: share of lines that say an answer | not by that of the self-edit's lines
def coverage(edit, passage):
    lines = edit.split("\n")
    return sum(any(sealkit.grade(line, q.answers) for q in passage.questions) for line in lines) / len(lines)

# WRONG: the whole self-edit as one answer | grade each line
def coverage(edit, passage):
    return sum(sealkit.grade(edit, question.answers) for question in passage.questions) / len(passage.questions)
