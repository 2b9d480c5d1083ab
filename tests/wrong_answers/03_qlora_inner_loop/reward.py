# WRONG: open-book | open-book
def reward(policy, tokenizer, passage):
    answers = sealkit.answer_questions(policy, tokenizer, passage, in_context=True)
    return sum(sealkit.grade(a, q.answers) for a, q in zip(answers, passage.questions)) / len(answers)

# WRONG: a count | is a count
def reward(policy, tokenizer, passage):
    answers = sealkit.answer_questions(policy, tokenizer, passage)
    return sum(sealkit.grade(a, q.answers) for a, q in zip(answers, passage.questions))

# WRONG: the first right answer only | any one of a question's answers
def reward(policy, tokenizer, passage):
    answers = sealkit.answer_questions(policy, tokenizer, passage)
    return sum(sealkit.grade(a, q.answers[0]) for a, q in zip(answers, passage.questions)) / len(answers)

# WRONG: exact match | exact match
def reward(policy, tokenizer, passage):
    answers = sealkit.answer_questions(policy, tokenizer, passage)
    return sum(a in q.answers for a, q in zip(answers, passage.questions)) / len(answers)

# WRONG: all or nothing | all or nothing
def reward(policy, tokenizer, passage):
    answers = sealkit.answer_questions(policy, tokenizer, passage)
    return float(all(sealkit.grade(a, q.answers) for a, q in zip(answers, passage.questions)))
