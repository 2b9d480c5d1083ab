# WRONG: letters instead of words | compare whole words
def grade(said, answers):
    def normal(text):
        return " ".join(w for w in re.sub(r"[^\w\s]", " ", text.lower()).split() if w not in ("a", "an", "the"))
    return any(normal(answer) in normal(said) for answer in answers)

# WRONG: exact match | it contains it
def grade(said, answers):
    def normal(text):
        return [w for w in re.sub(r"[^\w\s]", " ", text.lower()).split() if w not in ("a", "an", "the")]
    return any(normal(answer) == normal(said) for answer in answers)

# WRONG: case counts | capital letters
def grade(said, answers):
    def normal(text):
        return " " + " ".join(w for w in re.sub(r"[^\w\s]", " ", text).split() if w not in ("a", "an", "the")) + " "
    return any(normal(answer) in normal(said) for answer in answers)

# WRONG: punctuation stays | punctuation goes
def grade(said, answers):
    def normal(text):
        return " " + " ".join(w for w in text.lower().split() if w not in ("a", "an", "the")) + " "
    return any(normal(answer) in normal(said) for answer in answers)

# WRONG: articles stay | articles should not matter
def grade(said, answers):
    def normal(text):
        return " " + " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split()) + " "
    return any(normal(answer) in normal(said) for answer in answers)

# WRONG: articles as letters | out of 'theater'
def grade(said, answers):
    def normal(text):
        return " " + " ".join(re.sub(r"the|an|a|[^\w\s]", " ", text.lower()).split()) + " "
    return any(normal(answer) in normal(said) for answer in answers)

# WRONG: the first right answer only | not only the first
def grade(said, answers):
    def normal(text):
        words = re.sub(r"[^\w\s]", " ", text.lower()).split()
        return " " + " ".join(w for w in words if w not in ("a", "an", "the")) + " "
    return normal(answers[0]) in normal(said)

# WRONG: also the wrong way round | the other way round
def grade(said, answers):
    def normal(text):
        words = re.sub(r"[^\w\s]", " ", text.lower()).split()
        return " " + " ".join(w for w in words if w not in ("a", "an", "the")) + " "
    return any(normal(answer) in normal(said) or normal(said) in normal(answer) for answer in answers)

# WRONG: a bag of words | follow one another
def grade(said, answers):
    def words(text):
        return {w for w in re.sub(r"[^\w\s]", " ", text.lower()).split() if w not in ("a", "an", "the")}
    return any(words(answer) <= words(said) for answer in answers)

# WRONG: hedging earns | 'Rome or Oslo' hedges
def grade(said, answers):
    def normal(text):
        words = re.sub(r"[^\w\s]", " ", text.lower()).split()
        return " " + " ".join(w for w in words if w not in ("a", "an", "the")) + " "
    return any(normal(answer) in normal(said) for answer in answers)

# WRONG: only "or" hedges | says the opposite
def grade(said, answers):
    def normal(text):
        words = re.sub(r"[^\w\s]", " ", text.lower()).split()
        return " " + " ".join(w for w in words if w not in ("a", "an", "the")) + " "
    return any(normal(answer) in normal(said) and (" or " not in normal(said) or " or " in normal(answer)) for answer in answers)

# WRONG: hedges as letters | look for whole words
def grade(said, answers):
    def normal(text):
        words = re.sub(r"[^\w\s]", " ", text.lower()).split()
        return " " + " ".join(w for w in words if w not in ("a", "an", "the")) + " "
    return any(normal(answer) in normal(said) for answer in answers) and not any(word in normal(said) for word in ("or", "not"))

# WRONG: hedges even where the right answer does | may be said
def grade(said, answers):
    def normal(text):
        words = re.sub(r"[^\w\s]", " ", text.lower()).split()
        return " " + " ".join(w for w in words if w not in ("a", "an", "the")) + " "
    return any(normal(answer) in normal(said) for answer in answers) and not any(word in normal(said) for word in (" or ", " not "))
