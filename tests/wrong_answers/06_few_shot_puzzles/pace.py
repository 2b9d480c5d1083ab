# WRONG: unknown keys may stand there | unknown keys
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS - set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: a missing key raises an error | no text may raise
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := set(recipe) - KEYS:
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: JSON that is no object raises an error | no text may raise
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: text that is no JSON raises an error | no text may raise
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except KeyError:
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: true passes for a number of steps | true is an int
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if not isinstance(steps, int) or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: 40.0 passes for a number of steps | don't convert
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) not in (int, float) or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: NaN passes | NaN
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or rate <= 0 or rate > 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: recolour may be anything | recolour is true or false
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: no bounds of the steps | out of bounds
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or steps > 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: no budget | over a budget
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    return steps, rate, ""

# WRONG: the budget itself is too much | exactly the budget
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) + 1 > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: the budget counts outputs alone | over a budget
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: the budget is for one step | over a budget
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: takes fewer steps instead | don't take fewer steps
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        steps = budget // sum(len(x) + len(y) for x, y in pairs)
    return steps, rate, ""

# WRONG: one reason for all | name the key
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "invalid"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: no reason | say why in the reason
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, ""
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: reads any depth of brackets | no recipe, no error
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except ValueError:
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(len(x) + len(y) for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""

# WRONG: twelve cells a pair | 13
KEYS = {"recolour", "learning_rate", "steps"}
def pace(text, pairs, budget):
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return 0, 0.0, "this is no JSON"
    if not isinstance(recipe, dict):
        return 0, 0.0, "this is no JSON object"
    if wrong := KEYS ^ set(recipe):
        return 0, 0.0, f"unknown or missing: {sorted(wrong)}"
    rate, steps = recipe["learning_rate"], recipe["steps"]
    if type(recipe["recolour"]) is not bool:
        return 0, 0.0, "recolour is neither true nor false"
    if type(rate) not in (int, float) or not 0 < rate <= 0.1:
        return 0, 0.0, "learning_rate is no number above 0, at most 0.1"
    if type(steps) is not int or not 1 <= steps <= 100:
        return 0, 0.0, "steps is no whole number from 1 to 100"
    if steps * sum(12 for x, y in pairs) > budget:
        return 0, 0.0, "over the budget of cells trained on"
    return steps, rate, ""
