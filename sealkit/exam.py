"""The closed-book exam: questions asked without the passage, graded offline."""

from .prompts import BUNDLED, prompts_for
from .self_edits import complete_in_parts
from .tasks.grading import grade

MAX_ANSWER_TOKENS = 16


def exam_prompt(passage, question, in_context=False, prompts=BUNDLED):
    """The prompt of one question (Question): alone, or after the passage. See `prompts_for` for the prompts of a model."""
    shown = prompts.passage.format(title=passage.title, text=passage.text) if in_context else ""
    return f"{prompts.exam}{shown}Question: {question.question} Answer:"


def answer_questions(model, tokenizer, passage, in_context=False, max_new_tokens=MAX_ANSWER_TOKENS):
    """The model's greedy answer to each question of a passage (Passage) or of each of a list of passages.

    in_context: False is the paper's closed-book exam (the model never sees the passage), True shows it.
    Returns list[str], one for each question, up to the end of the line; or a list of such lists.
    """
    passages = passage if isinstance(passage, list) else [passage]
    asked = prompts_for(tokenizer)
    prompts = [exam_prompt(p, question, in_context, asked) for p in passages for question in p.questions]
    said = iter(complete_in_parts(model, tokenizer, prompts, max_new_tokens, stops=("\n",)))
    answers = [[next(said) for _ in p.questions] for p in passages]
    return answers if isinstance(passage, list) else answers[0]


def accuracy(answers, passage):
    """Share of the passage's questions that `answers` (list[str]) gets right, in [0, 1]."""
    if not passage.questions:
        raise ValueError(f"The passage {passage.title!r} has no questions: without an exam there is no reward; add some.")
    return sum(grade(a, q.answers) for a, q in zip(answers, passage.questions, strict=True)) / len(passage.questions)
