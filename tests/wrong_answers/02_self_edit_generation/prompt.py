# WRONG: no title | title is missing
def prompt(passage, style=None):
    return f"{passage.text}\n\n{CUES[style]}"

# WRONG: shows the exam | must not see them
def prompt(passage, style=None):
    questions = "\n".join(q.question for q in passage.questions)
    return f"{passage.title}\n{passage.text}\n{questions}\n\n{CUES[style]}"

# WRONG: one newline | two newlines
def prompt(passage, style=None):
    return f"{passage.title}\n{passage.text}\n{CUES[style]}"

# WRONG: a space after the cue | ends with a space
def prompt(passage, style=None):
    return f"{passage.title}\n{passage.text}\n\n{CUES[style]} "

# WRONG: no cue without a style | the cue is missing
def prompt(passage, style=None):
    return f"{passage.title}\n{passage.text}\n\n" + (CUES[style] if style else "")

# WRONG: always Notes | is ignored
def prompt(passage, style=None):
    return f"{passage.title}\n{passage.text}\n\nNotes:"
