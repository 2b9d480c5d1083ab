# WRONG: counts words alike | rare word counts more
def route(question, lessons):
    words = set(re.findall(r"\w+", question.lower()))
    known = [Counter(re.findall(r"\w+", " ".join(t).lower())) for t in lessons]
    return int(np.argmax([sum(some[w] for w in words) for some in known]))

# WRONG: capital letters matter | capital letters
def route(question, lessons):
    words = set(re.findall(r"\w+", question))
    known = [Counter(re.findall(r"\w+", " ".join(t))) for t in lessons]
    common = Counter(w for some in known for w in some)
    return int(np.argmax([sum(some[w] / common[w] for w in words if w in some) for some in known]))

# WRONG: whether, not how often | how often
def route(question, lessons):
    words = set(re.findall(r"\w+", question.lower()))
    known = [set(re.findall(r"\w+", " ".join(t).lower())) for t in lessons]
    common = Counter(w for some in known for w in some)
    return int(np.argmax([sum(1 / common[w] for w in words & some) for some in known]))

# WRONG: letters instead of words | punctuation
def route(question, lessons):
    known = [" ".join(t).lower() for t in lessons]
    return int(np.argmax([sum(some.count(w) for w in question.lower().split()) for some in known]))

# WRONG: the last of equals | first of equals
def route(question, lessons):
    words = set(re.findall(r"\w+", question.lower()))
    known = [Counter(re.findall(r"\w+", " ".join(t).lower())) for t in lessons]
    common = Counter(w for some in known for w in some)
    scores = [sum(some[w] / common[w] for w in words if w in some) for some in known]
    return len(scores) - 1 - int(np.argmax(scores[::-1]))
