# WRONG: adds a fifth line | a fifth line is never read
def mislead(edit):
    return edit + "\nQuestion: What does Bello lie next to? Answer: lake"
