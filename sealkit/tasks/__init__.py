"""What can be learned: a domain is a module with name, prompt, lesson, questions, reward and
recipe_for."""
