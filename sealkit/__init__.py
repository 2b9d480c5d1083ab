"""SEAL, self-adapting language models (arXiv:2506.10943), on a 4-bit Mistral that fits a laptop."""

import logging

# Before anything imports bitsandbytes: on import it asks for one more package, for what
# `loading.py` rules out.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

from .api import (
    answer_questions,
    compare,
    compare_controls,
    compare_together,
    evaluate_self_edits,
    generate_self_edits,
    run_seal,
)
from .estimate import Estimate, estimate_run
from .evaluation import Comparison
from .evaluation.together import Together
from .inner_loop import Lesson, Trial
from .loading import load_quantized
from .models.choice import environment
from .outer_loop import History, Iteration, seal
from .policy import Config, Policy, attach_policy
from .runs.files import RunError
from .runs.journal import Journal
from .tasks.diagnosis import Diagnosis, diagnose
from .tasks.grading import grade
from .tasks.knowledge import config_for, training_sequences
from .tasks.passages import Passage, Question, load_passages
