"""Knowledge incorporation (paper, section 3.2): a passage C, a self-edit in lines of text, a
closed-book exam τ."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ..inner_loop import Lesson
from ..policy import Config
from ..selection import keep_best_above_threshold
from .grading import exact_match, grade
from .passages import Passage, Question

NOUN = "passage"  # what an item is called
CHARACTERS = 100_000  # of a self-edit that are read; `Config.max_tokens` takes far fewer
TEXTS = {path.stem: path.read_text("utf-8") for path in Path(__file__).parent.glob("prompts/*.txt")}


@dataclass(frozen=True)
class Prompts:
    """The texts around a passage and around an exam question.

    cues: under the passage, for each style of self-edit (None: the default); the model goes on in
    the same line. examples: before the passage. exam: before a question. stops: where a self-edit
    ends, besides the end token. grader: of the answers, one of GRADERS. by_sentence: whether a
    self-edit is written of one sentence after the other, a line of each. supported: whether only
    those of its lines are trained on that the passage supports, see `is_supported`.
    """

    cues: dict[str | None, str]
    examples: dict[str | None, str]
    exam: str = ""
    passage: str = "{title}\n{text}\n\n"
    stops: tuple[str, ...] = ()
    grader: str = "rule"
    by_sentence: bool = False
    supported: bool = False

    @property
    def styles(self) -> tuple[str, ...]:
        """The names of the styles, without the default."""
        return tuple(style for style in self.cues if style)


# The bundled model has read all of these; None leaves the choice of style to the policy.
KINDS: tuple[str, ...] = "implications", "questions", "rewrite", "gist"
CUES = {None: "Notes:"} | {style: f"{style.title()}:" for style in KINDS}
GRADERS = {"rule": grade, "exact match": exact_match}
BUNDLED_CONFIG = Config(
    Prompts(CUES, dict.fromkeys(CUES, ""), grader="exact match"),
    keep=keep_best_above_threshold,
    top_p=0.8,
    max_new_tokens=80,
    max_lines=4,
)


# A base model follows an example rather than an instruction, so each style has one, on a made-up
# ferry that no model can know, and the line that would open the next example ends the self-edit.
# Learning rates and epochs are the paper's (whose batches hold one sequence, ours all of a self-
# edit), the rest is what a 16 GB GPU can hold.
STYLES = {
    "implications": "Implications:",
    "long implications": "Detailed implications:",
    "rewrite": "Rewrite:",
    "questions": "Questions and answers:",
}
EXAMPLES = {style: TEXTS[style].replace("{ferry}", TEXTS["ferry"]) for style in STYLES}
GENERAL_CONFIG = Config(
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

# SmolLM2-135M can't go by an instruction either, nor keep to a passage as a whole. Chosen on
# training passages that no table reports (`tests/benchmarks/README.md`).
SMOLLM2_CONFIG = replace(
    GENERAL_CONFIG,
    prompts=Prompts(
        {None: "Quiz:", "questions": "Quiz:"},
        dict.fromkeys((None, "questions"), TEXTS["sentences"]),
        TEXTS["exam"],
        "Title: {title}\nSentence: {text}\n",
        ("\n",),
        by_sentence=True,
        supported=True,
    ),
    temperature=0.5,
    max_new_tokens=48,
    learning_rate=3e-3,
    steps=5,
    adapters_per_pass=1,
    checkpointing=False,
)


def config_for(tokenizer: PreTrainedTokenizerBase) -> Config:
    """The Config that goes with a model: what its tokenizer's folder names, else GENERAL_CONFIG.

    >>> import sealkit
    >>> config_for(sealkit.load_quantized("bundled")[1]) is BUNDLED_CONFIG
    True
    """
    known = {"bundled": BUNDLED_CONFIG, "smollm2": SMOLLM2_CONFIG}
    return known.get(tokenizer.init_kwargs.get("prompts"), GENERAL_CONFIG)


def name(passage: Passage) -> tuple[str, str]:
    """What tells one passage from another: its title first."""
    return passage.title, passage.text


def shown(passage: Passage, config: Config) -> str:
    """A passage as the config's prompts show it."""
    return config.prompts.passage.format(title=passage.title, text=passage.text)


def parts(passage: Passage, config: Config) -> list[Passage]:
    """What a self-edit is written of, piece by piece: the passage, or each of its sentences.

    >>> [part.text for part in parts(Passage("", "It burns. So it is lit.", ()), SMOLLM2_CONFIG)]
    ['It burns.', 'So it is lit.']
    """
    if not config.prompts.by_sentence:
        return [passage]
    return [replace(passage, text=text) for text in SENTENCE_END.split(passage.text.strip())]


def prompt(passage: Passage, config: Config, style: str | None = None) -> str:
    """What asks for a self-edit, in a style of the config's prompts or (None) in its default.

    In the bundled world the default leaves the style to the policy. Raises ValueError.
    """
    examples, cues = config.prompts.examples, config.prompts.cues
    if style not in cues:
        known = ", ".join(config.prompts.styles)
        raise ValueError(f"No self-edit style {style!r}: use one of {known}, or None.")
    return examples[style] + shown(passage, config) + cues[style]


def style(passage: Passage, edit: str) -> str:
    """Which style a self-edit is written in, told from its form: one of KINDS.

    Lines with "Question:"; no word of the passage but those of its title (a gist); several
    sentences in a line (a rewrite); else implications.
    """
    if "Question:" in edit:
        return "questions"
    text, about, written = (
        set(re.findall(r"\w{3,}", part.lower())) for part in (passage.text, passage.title, edit)
    )
    if not written & (text - about - {"the", "and"}):
        return "gist"
    lines = training_sequences(edit, passage)[1:]
    return "rewrite" if any(". " in line for line in lines) else "implications"


def lesson(passage: Passage, edit: str, config: Config) -> Lesson:
    """What the inner loop trains on, and how fast; without a self-edit ("") the passage alone."""
    passage_text, *lines = training_sequences(edit, passage)
    if config.prompts.supported:
        lines = [line for line in lines if is_supported(line, passage)]
    return Lesson([passage_text, *lines[: config.max_lines]], config.steps, config.learning_rate)


def exam(passage: Passage) -> tuple[Question, ...]:
    """The passage's questions."""
    return passage.questions


def questions(passage: Passage, config: Config, in_context: bool = False) -> list[str]:
    """The exam's prompts, list[str]; with the passage in view, it is none (closed book)."""
    before = config.prompts.exam + (shown(passage, config) if in_context else "")
    return [f"{before}Question: {question.question} Answer:" for question in passage.questions]


def reward(passage: Passage, answers: Sequence[str], config: Config | None = None) -> float:
    """Share of the passage's questions that `answers` (list[str]) gets right, in [0, 1].

    By the grader that the config's prompts name; without a config by `grade`.
    """
    if not passage.questions:
        raise ValueError(NO_EXAM.format(passage.title))
    judge = GRADERS[config.prompts.grader] if config else grade
    pairs = zip(answers, passage.questions, strict=True)
    right = [judge(answer, question.answers) for answer, question in pairs]
    return sum(right) / len(right)


SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)]))\s+(?=[^\Wa-z]|[\"'“‘(\[])")
NO_EXAM = "The passage {!r} has no questions: without an exam there is no reward; add some."
LABEL = re.compile(  # 1.  2)  (3)  [4]  a.  -  •  ##  "Implication 5:"
    r"^\s*(?:[(\[]?\d{1,3}[.):\]]+(?:\s+|(?=[A-Z\"]))|\(?[a-z][.)]\s+|[-*•–·▪◦>]\s+|#+\s+"
    r"|(?i:implication|inference|fact|point|statement|step) \d{1,3}[.:]\s+)+"
)
PREAMBLE = re.compile(  # what an assistant says before its list, where it does not end in a colon
    r"(?i)(?:sure|certainly|of course|okay)[,!.]|let's |(?:here|below)(?: is|'s| are) "
    r"(?:an? |the |some |my )?(?:list|implications|rewrit|questions|sentences)"
)


def training_sequences(edit: str, passage: Passage) -> list[str]:
    """The texts that the inner loop trains on: the passage itself and each line of the self-edit.

    Numbering, bullets, headings' and bold marks are taken off; a line of preamble (one that ends in
    a colon, or says "Sure!") and repeated lines are left out; a "Question:" line is joined with the
    "Answer:" line after it. Never empty: with an empty self-edit it is the passage alone. Of a
    longer self-edit the first CHARACTERS are read.

    >>> from sealkit import Passage
    >>> edit = "Sure!\\n1. It burns.\\n2. Question: What?\\nAnswer: It."
    >>> training_sequences(edit, Passage("", "A.", ()))
    ['A.', 'It burns.', 'Question: What? Answer: It.']
    """
    text = re.sub(r"\*\*|__(?=\w)|(?<=\w)__", "", edit[:CHARACTERS].replace("\r", "\n"))
    question = r"(?im)^((?:[^\w\n]|\d)*(?:question|q)\b.*)\n[\W\d]*(?=(?:answer|a)\s*:)"
    lines = [LABEL.sub("", line).strip() for line in re.sub(question, r"\1 ", text).split("\n")]
    lines = [line for line in lines if re.search(r"\w", line) and not line.endswith(":")]
    lines = [line for line in lines if not PREAMBLE.match(line)]
    return [f"{passage.title}\n{passage.text}".strip(), *dict.fromkeys(lines)]


def is_supported(line: str, passage: Passage) -> bool:
    """Whether a passage may support a statement: its answer if it is a question with one, else all
    its names and numbers, stand in the passage, word by word. (That they belong together it can't
    tell.)

    >>> passage = Passage("Lamp", "It was lit in 1891 by Ada Byron.", ())
    >>> [is_supported(line, passage) for line in ("Byron lit it.", "Lit in 1892.")]
    [True, False]
    >>> is_supported("Question: When? Answer: in 1891", passage)
    True
    """
    known = set(words(f"{passage.title} {passage.text}"))
    if answer := re.search(r"(?i)\banswer:(.*)", line):
        said = words(answer[1])
        return bool(said) and known.issuperset(said)
    said = [word for word in re.findall(r"\w+", line)[1:] if word[0].isupper() or word[0].isdigit()]
    return known.issuperset(words(" ".join(said)))


def words(text: str) -> list[str]:
    """The words and numbers of a text, in lower case."""
    return re.findall(r"\w+", text.lower())
