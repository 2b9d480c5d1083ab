"""Knowledge incorporation (paper, section 3.2): a passage C, a self-edit in lines of text, a
closed-book exam τ."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..inner_loop import Lesson
from ..policy import Recipe
from .grading import grade

CHARACTERS = 100_000  # of a self-edit that are read; `Recipe.max_tokens` takes far fewer
TEXTS = {path.stem: path.read_text("utf-8") for path in Path(__file__).parent.glob("prompts/*.txt")}


@dataclass(frozen=True)
class Prompts:
    """The texts around a passage and around an exam question.

    Examples come first, then the passage, then the cue, after which the model goes on in the same
    line.
    """

    cues: dict[
        str | None, str
    ]  # under the passage, for each style of self-edit; None is the default
    examples: dict[str | None, str]  # before the passage, for each style; "" for none
    exam: str = ""  # before an exam question: what an answer looks like
    passage: str = "{title}\n{text}\n\n"
    stops: tuple[str, ...] = ()  # where a self-edit ends, besides the end token

    @property
    def styles(self):
        """The names of the styles, without the default."""
        return tuple(style for style in self.cues if style)


# The bundled model has read all of these in pretraining; None leaves the choice of style to the
# policy.
CUES = {None: "Notes:"} | {
    style: f"{style.title()}:" for style in ("implications", "questions", "rewrite", "gist")
}
BUNDLED = Recipe(Prompts(CUES, dict.fromkeys(CUES, "")))

# A base model follows an example rather than an instruction, so each style has one, on a made-up
# ferry that no model can know, and the line that would open the next example ends the self-edit.
# Learning rates and epochs are the paper's, the rest is what a 16 GB GPU can hold. Its batches hold
# one sequence, ours all of a self-edit.
STYLES = {
    "implications": "Implications:",
    "long implications": "Detailed implications:",
    "rewrite": "Rewrite:",
    "questions": "Questions and answers:",
}
EXAMPLES = {style: TEXTS[style].replace("{ferry}", TEXTS["ferry"]) for style in STYLES}
GENERAL = Recipe(
    Prompts(
        {None: STYLES["implications"]} | STYLES,
        {None: EXAMPLES["implications"]} | EXAMPLES,
        TEXTS["exam"],
        "Title: {title}\nPassage: {text}\n",
        ("\nTitle:", "\nPassage:"),
    ),
    learning_rate=1e-3,
    steps=10,
    adapters_per_pass=5,
    checkpointing=True,
    max_new_tokens=320,
    epochs=2,
    m_step_learning_rate=3e-4,
    rows_per_pass=1,
    texts_per_pass=20,
)


def recipe_for(tokenizer):
    """The Recipe that goes with a model: what its tokenizer's folder names, else GENERAL."""
    return {"bundled": BUNDLED}.get(tokenizer.init_kwargs.get("prompts"), GENERAL)


def name(passage):
    """What tells one passage from another: its title first."""
    return passage.title, passage.text


def shown(passage, prompts):
    return prompts.passage.format(title=passage.title, text=passage.text)


def prompt(passage, recipe, style=None):
    """What asks for a self-edit of `passage`, in one of the styles of the recipe's prompts or
    (None) in its default.

    In the bundled world the default leaves the style to the policy. Raises ValueError for an
    unknown style.
    """
    prompts = recipe.prompts
    if style not in prompts.cues:
        raise ValueError(
            f"No self-edit style {style!r}: use one of {', '.join(prompts.styles)}, or None."
        )
    return prompts.examples[style] + shown(passage, prompts) + prompts.cues[style]


def lesson(passage, edit, recipe):
    """What the inner loop trains on, and how fast; without a self-edit ("") the passage alone."""
    return Lesson(training_sequences(edit, passage), recipe.steps, recipe.learning_rate)


def questions(passage, recipe, in_context=False):
    """The prompts of the exam, one for each question, with the passage in view or (the exam proper)
    without."""
    prompts = recipe.prompts
    before = prompts.exam + (shown(passage, prompts) if in_context else "")
    return [f"{before}Question: {question.question} Answer:" for question in passage.questions]


def reward(passage, answers):
    """Share of the passage's questions that `answers` (list[str]) gets right, in [0, 1].

    Raises ValueError if it has no questions.
    """
    if not passage.questions:
        raise ValueError(
            f"The passage {passage.title!r} has no questions: without an exam there is no reward; add some."
        )
    right = [
        grade(said, question.answers)
        for said, question in zip(answers, passage.questions, strict=True)
    ]
    return sum(right) / len(right)


_LABEL = re.compile(  # 1.  2)  (3)  [4]  a.  -  •  ##  "Implication 5:"
    r"^\s*(?:[(\[]?\d{1,3}[.):\]]+(?:\s+|(?=[A-Z\"]))|\(?[a-z][.)]\s+|[-*•–·▪◦>]\s+|#+\s+"
    r"|(?i:implication|inference|fact|point|statement|step) \d{1,3}[.:]\s+)+"
)
_PREAMBLE = re.compile(  # what an assistant says before its list, or to itself, where it does not end in a colon
    r"(?:sure|certainly|of course|okay)[,!.]|let's "
    r"|(?:here|below)(?: is|'s| are) (?:an? |the |some |my )?(?:list|implications|rewrit|questions|sentences)",
    re.I,
)


def training_sequences(edit, passage):
    """The texts that the inner loop trains on: the passage itself and each line of the self-edit.

    Numbering, bullets, headings' and bold marks are taken off; a line of preamble (one that ends in
    a colon, or says "Sure!") and repeated lines are left out; a "Question:" line is joined with the
    "Answer:" line after it. Never empty: with an empty self-edit it is the passage alone. Of a
    longer self-edit the first CHARACTERS are read.

    >>> from sealkit import Passage
    >>> training_sequences("Sure!\\n1. It burns.\\n2. Question: What?\\nAnswer: It.", Passage("Lamp", "A lamp.", ()))
    ['Lamp\\nA lamp.', 'It burns.', 'Question: What? Answer: It.']
    """
    text = re.sub(r"\*\*|__(?=\w)|(?<=\w)__", "", edit[:CHARACTERS].replace("\r", "\n"))
    text = re.sub(
        r"(?im)^((?:[^\w\n]|\d)*(?:question|q)\b.*)\n[\W\d]*(?=(?:answer|a)\s*:)", r"\1 ", text
    )
    lines = [_LABEL.sub("", line).strip() for line in text.split("\n")]
    lines = [
        line
        for line in lines
        if re.search(r"\w", line) and not line.endswith(":") and not _PREAMBLE.match(line)
    ]
    return [f"{passage.title}\n{passage.text}".strip(), *dict.fromkeys(lines)]
