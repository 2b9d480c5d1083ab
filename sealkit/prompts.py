"""What a model is asked: the bundled world's bare cues, and prompts with worked examples for any other model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompts:
    """The texts around a passage and around an exam question.

    Examples come first, then the passage, then the cue, after which the model goes on in the same line.
    """

    cues: dict[str | None, str]                  # under the passage, for each style of self-edit; None is the default
    examples: dict[str | None, str]              # before the passage, for each style; "" for none
    exam: str = ""                               # before an exam question: what an answer looks like
    passage: str = "{title}\n{text}\n\n"
    stops: tuple[str, ...] = ()                  # where a self-edit ends, besides the end token
    max_new_tokens: int = 160                    # of a self-edit

    @property
    def styles(self):
        """The names of the styles, without the default."""
        return tuple(style for style in self.cues if style)


# The bundled model has read all of these in pretraining; None leaves the choice of style to the policy.
_CUES = {None: "Notes:", "implications": "Implications:", "questions": "Questions:", "rewrite": "Rewrite:", "gist": "Gist:"}
BUNDLED = Prompts(_CUES, dict.fromkeys(_CUES, ""))

# For every other model. A base model follows an example rather than an instruction, so each style has one, on a made-up
# ferry that no model can know, and the line that would open the next example ends the self-edit.
_FERRY = """Title: Varnholt ferry
Passage: The Varnholt ferry has crossed the Tessel strait since 1904. Built by the Lindqvist brothers for a mining company, \
it carried ore until the mine closed in 1958. Two years later the town bought it, and today it takes about 300 passengers a day.
"""
_IMPLICATIONS = """Each passage is followed by a list of what it states or implies. Every line can be understood without the passage.

""" + _FERRY + """Implications: 1. The Varnholt ferry began to cross the Tessel strait in 1904.
2. The Lindqvist brothers built the Varnholt ferry.
3. The Varnholt ferry was built for a mining company and carried ore.
4. The mine that the Varnholt ferry served closed in 1958.
5. The town bought the Varnholt ferry in 1960.
6. The Varnholt ferry takes about 300 passengers a day.

"""
_LONG = """Each passage is followed by a long list of what it states or implies. Every line tells who, what, when and why in full, \
and can be understood without the passage.

""" + _FERRY + """Detailed implications: 1. The Varnholt ferry is a ferry across the Tessel strait, and it has been in service since 1904.
2. The Lindqvist brothers built the Varnholt ferry for a mining company, which needed it to carry ore across the Tessel strait.
3. The Varnholt ferry carried ore until 1958, because in that year the mine closed and there was no more ore to carry.
4. In 1960, two years after the mine had closed, the town bought the Varnholt ferry from its former use in mining.
5. Since the town owns it, the Varnholt ferry serves people instead of a mine, and about 300 passengers use it each day.

"""
_REWRITE = """Each passage is followed by a rewrite: the same facts, in other words and another order, one sentence to a line, with names instead of pronouns.

""" + _FERRY + """Rewrite: About 300 passengers a day cross the Tessel strait on the Varnholt ferry.
The Varnholt ferry belongs to the town, which bought it in 1960.
Before that, until the closing of the mine in 1958, the Varnholt ferry transported ore.
A mining company had ordered the Varnholt ferry from its builders, the Lindqvist brothers.
Service on the Varnholt ferry started in 1904.

"""
_QUESTIONS = """Each passage is followed by questions that it answers, each with its answer. Every question can be understood without the passage.

""" + _FERRY + """Questions and answers: Question: When did the Varnholt ferry begin to cross the Tessel strait? Answer: 1904
Question: Who built the Varnholt ferry? Answer: the Lindqvist brothers
Question: What did the Varnholt ferry carry for the mining company? Answer: ore
Question: In which year did the town buy the Varnholt ferry? Answer: 1960
Question: How many passengers use the Varnholt ferry each day? Answer: about 300

"""
_EXAM = """Each question is followed by a short answer.

Question: What is the capital of Japan? Answer: Tokyo
Question: How many legs does a spider have? Answer: eight
Question: Who wrote the tragedy Romeo and Juliet? Answer: William Shakespeare
Question: Why do leaves look green? Answer: they contain chlorophyll

"""
GENERAL = Prompts(
    cues={None: "Implications:", "implications": "Implications:", "long implications": "Detailed implications:",
          "rewrite": "Rewrite:", "questions": "Questions and answers:"},
    examples={None: _IMPLICATIONS, "implications": _IMPLICATIONS, "long implications": _LONG, "rewrite": _REWRITE, "questions": _QUESTIONS},
    exam=_EXAM,
    passage="Title: {title}\nPassage: {text}\n",
    stops=("\nTitle:", "\nPassage:"),
    max_new_tokens=320,
)


def prompts_for(tokenizer):
    """BUNDLED for a tokenizer of the bundled world, which says so in its `tokenizer_config.json`, as a chat template would be; else GENERAL."""
    return BUNDLED if tokenizer.init_kwargs.get("prompts") == "bundled" else GENERAL
