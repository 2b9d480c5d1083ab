"""What a run on Mistral-7B would take on a Colab GPU, computed before anything is downloaded."""

from ..tasks.knowledge import GENERAL_CONFIG as CONFIG

WEIGHTS = 7.24e9
PACKED, DEQUANTIZED = 4.1e9, 14.5e9  # bytes of the weights in NF4 and in float16
GPUS = {"T4": (65e12, 320e9), "A100": (312e12, 1555e9)}  # float16 operations/s, bytes/s, at most
SHARES = 0.4, 0.2  # of either that are assumed to be reached
QUESTIONS, ASKED, PROMPT = 5, 140, 400  # a passage's questions; tokens of one, of a writing prompt

Range = tuple[float, float]


def compute_minutes(
    gpu: str, iterations: int, k: int, passages: int, held_out: int
) -> dict[str, Range]:
    """{part of the run: (least, most) minutes}, for the run of the command line and its arms.

    A token takes 2 operations a weight forward and 4 more in a pass that trains (forward again,
    backward). A step of decoding reads all weights: packed at the least, at the most dequantized
    into memory and read again. All texts are taken to be as long as the configuration allows.

    >>> {part: round(least) for part, (least, most) in compute_minutes("T4", 2, 5, 40, 60).items()}
    {'training': 103, 'writing': 9, 'exams': 8, 'M-step': 3}
    """
    speed, bandwidth = GPUS[gpu]
    edits = iterations * passages * k + held_out * (iterations + 1)
    trials = iterations * passages * (k + 1) + held_out * (iterations + 2)
    exams = trials + iterations * passages + 2 * held_out
    learned = iterations * passages * CONFIG.epochs  # one self-edit of each passage is kept
    long = PROMPT + CONFIG.max_new_tokens

    def estimate(operations: float, steps: float = 0) -> Range:
        traffic = PACKED, PACKED + 2 * DEQUANTIZED
        least, most = (
            (operations * WEIGHTS / speed + steps * bytes_read / bandwidth) / share / 60
            for bytes_read, share in zip(traffic, SHARES)
        )
        return least, most

    return {
        "training": estimate(6 * trials * CONFIG.steps * CONFIG.max_tokens),
        "writing": estimate(
            2 * edits * long, edits / CONFIG.texts_per_pass * CONFIG.max_new_tokens
        ),
        "exams": estimate(
            2 * exams * QUESTIONS * (ASKED + CONFIG.answer_tokens),
            exams / CONFIG.adapters_per_pass * CONFIG.answer_tokens,
        ),
        "M-step": estimate(6 * learned * long),
    }


def format_minutes(iterations: int, k: int, passages: int, held_out: int) -> str:
    """A table of `compute_minutes` for each GPU, with what it is computed from."""
    counts = f"passages {passages}, self-edits {k}, iterations {iterations}, held out {held_out}"
    lines = [f"Mistral-7B ({counts}): minutes, computed, not measured"]
    for gpu in GPUS:
        parts = compute_minutes(gpu, iterations, k, passages, held_out)
        parts["in all"] = tuple(map(sum, zip(*parts.values())))  # type: ignore[assignment]
        cells = (f"{part} {least:.0f} to {most:.0f}" for part, (least, most) in parts.items())
        lines.append(f"{gpu:5}{', '.join(cells)}")
    lines.append("At 40 to 20% of the GPU's peak. Before: 15 GB to download. At work: 9 GiB.")
    return "\n".join(lines)
