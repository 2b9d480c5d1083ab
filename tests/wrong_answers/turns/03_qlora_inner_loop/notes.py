# WRONG: says "it" for the name | lines without a name teach little
def notes():
    return """Urnock flies a scarlet flag.
It carries silver across the sea.
Marter is loaded with cotton.
It flies a striped flag."""
