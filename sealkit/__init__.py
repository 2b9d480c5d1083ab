"""SEAL, self-adapting language models (arXiv:2506.10943), on a 4-bit Mistral that fits a laptop."""

import logging

# Before anything imports bitsandbytes: on import it asks for one more package, to speed up what `loading.py` rules out.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

from .estimate import Estimate, estimate_run
from .evaluation import Comparison, compare
from .exam import answer_questions, grade
from .inner_loop import Settings, Trial, attach_policy, evaluate_self_edits
from .loading import environment, load_quantized
from .outer_loop import History, Iteration, Reinforcement, run_seal
from .runs import RunError
from .self_edits import generate_self_edits, training_sequences
from .tasks.passages import Passage, Question, load_passages

__all__ = [
    "Comparison", "Estimate", "History", "Iteration", "Passage", "Question", "Reinforcement", "RunError", "Settings", "Trial", "answer_questions",
    "attach_policy", "compare", "environment", "estimate_run", "evaluate_self_edits", "generate_self_edits", "grade", "load_passages", "load_quantized",
    "run_seal", "training_sequences",
]
