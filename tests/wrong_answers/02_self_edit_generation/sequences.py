# WRONG: leaves the passage out | the passage itself comes first
def sequences(edit, passage):
    edit = re.sub(r"\nAnswer:", " Answer:", edit)
    lines = [re.sub(r"^\s*(\d+[.)]\s|[-*]\s)\s*", "", line).strip() for line in edit.split("\n")]
    return list(dict.fromkeys(line for line in lines if line and not line.endswith(":")))

# WRONG: keeps the announcement | end with a colon
def sequences(edit, passage):
    edit = re.sub(r"\nAnswer:", " Answer:", edit)
    lines = [re.sub(r"^\s*(\d+[.)]\s|[-*]\s)\s*", "", line).strip() for line in edit.split("\n")]
    return [f"{passage.title}\n{passage.text}", *dict.fromkeys(line for line in lines if line)]

# WRONG: keeps empty lines | empty line
def sequences(edit, passage):
    edit = re.sub(r"\nAnswer:", " Answer:", edit)
    lines = [re.sub(r"^\s*(\d+[.)]\s|[-*]\s)\s*", "", line).strip() for line in edit.split("\n")]
    return [f"{passage.title}\n{passage.text}", *dict.fromkeys(line for line in lines if not line.endswith(":"))]

# WRONG: keeps the numbering | numbering or bullets
def sequences(edit, passage):
    lines = [line.strip() for line in re.sub(r"\nAnswer:", " Answer:", edit).split("\n")]
    return [f"{passage.title}\n{passage.text}", *dict.fromkeys(x for x in lines if x and not x.endswith(":"))]

# WRONG: keeps repeated lines | trained on twice
def sequences(edit, passage):
    edit = re.sub(r"\nAnswer:", " Answer:", edit)
    lines = [re.sub(r"^\s*(\d+[.)]\s|[-*]\s)\s*", "", line).strip() for line in edit.split("\n")]
    return [f"{passage.title}\n{passage.text}", *[line for line in lines if line and not line.endswith(":")]]

# WRONG: set() loses the order | keep the order
def sequences(edit, passage):
    edit = re.sub(r"\nAnswer:", " Answer:", edit)
    lines = [re.sub(r"^\s*(\d+[.)]\s|[-*]\s)\s*", "", line).strip() for line in edit.split("\n")]
    return [f"{passage.title}\n{passage.text}", *sorted({x for x in lines if x and not x.endswith(":")})]

# WRONG: question and answer apart | became two sequences
def sequences(edit, passage):
    lines = [re.sub(r"^\s*(\d+[.)]\s|[-*]\s)\s*", "", line).strip() for line in edit.split("\n")]
    return [f"{passage.title}\n{passage.text}", *dict.fromkeys(x for x in lines if x and not x.endswith(":"))]

# WRONG: strips all digits from the start | taken for numbering
def sequences(edit, passage):
    lines = [line.lstrip(" 0123456789.)-*") for line in re.sub(r"\nAnswer:", " Answer:", edit).split("\n")]
    return [f"{passage.title}\n{passage.text}", *dict.fromkeys(x for x in lines if x and not x.endswith(":"))]
