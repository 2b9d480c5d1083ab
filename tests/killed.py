"""A small SEAL run that is killed at random points: `python tests/killed.py FOLDER SEED`.

The model is loaded once. A fork of this process runs to its end in `FOLDER/unbroken`; for each
point, another is killed there with SIGKILL, and one more resumes it. Points are `module:N` (before
the N-th call of any module), `file:N` (before the N-th time that a file of the run is opened,
renamed or made), `record:N` and `adapter:N` (with half of the N-th record, or of the N-th adapter,
written). Prints a JSON line for each point: how the run ended, and what the resumed one printed.

`python tests/killed.py FOLDER` is the small run itself, in FOLDER, also under torchrun. With
`BROKEN POINT` after it, another small run follows in BROKEN, whose last process is killed there.
"""

import gc
import json
import os
import random
import signal
import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch

import sealkit
from sealkit.runs import files, journal, processes
from sealkit.selection import keep_best_above_baseline

ENDED = "This process has ended the small run."
POINTS = {"module": 5, "file": 4, "record": 2, "adapter": 1}


def killer(point, folder):
    """Count what happens and kill this process at the point; returns the counter."""
    kind, _, number = point.partition(":")
    seen = Counter()

    def happens(what):
        seen[what] += 1
        if kind == what and seen[what] == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event, arguments):
        if event in ("open", "os.rename", "os.mkdir") and str(folder) in str(arguments[0]):
            happens("file")

    class File:
        def __init__(self, path, *arguments, **options):
            self.file, path = open(path, *arguments, **options), Path(path)
            self.what = "record" if path.name == "journal.jsonl" else "adapter"

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            if self.what == "record" or len(data) > 100_000:  # not what is written whole in JSON
                if kind == self.what and seen[kind] + 1 == int(number):
                    self.file.write(data[: len(data) // 2])
                    self.file.flush()
                happens(self.what)
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    sys.addaudithook(audit)
    hook = torch.nn.modules.module.register_module_forward_pre_hook
    hook(lambda module, inputs: happens("module"))
    files.open = journal.open = File
    return seen


def fork(model, tokenizer, folder, point="none"):
    """Run in a fork: (its wait status, lines that it printed, what it counted)."""
    log, counts = folder.with_suffix(".log"), folder.with_suffix(".json")
    if not (child := os.fork()):
        status = 1
        try:
            seen = killer(point, folder)
            with open(log, "w", encoding="utf-8", buffering=1) as file, redirect_stdout(file):
                small_run(model, tokenizer, folder)
            counts.write_text(json.dumps(seen))
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    seen = json.loads(counts.read_text()) if counts.exists() else {}
    return status, log.read_text(encoding="utf-8").splitlines(), seen


def small_policy(model, tokenizer, **changes):
    """`model` with a policy for runs of few steps, in several parts of self-edits and of trials."""
    small = {"steps": 2, "adapters_per_pass": 4, "epochs": 1, "texts_per_pass": 3}
    small["keep"] = keep_best_above_baseline  # in two steps hardly any earns 75%
    config = replace(sealkit.config_for(tokenizer), **small | changes)
    policy = sealkit.attach_policy(model, config, seed=3)
    policy.seal_config = config  # also of one that is there already
    return policy


def small_run(model, tokenizer, folder, iterations=2, k=2, seed=3, passages=None, **changes):
    """Two iterations over two passages with two self-edits each; changes: of the recipe."""
    policy = small_policy(model, tokenizer, **changes)
    passages = passages or sealkit.load_passages("bundled", limit=2)
    return sealkit.run_seal(policy, tokenizer, passages, iterations, k, folder, seed)


def main(folder, *words):
    torch.set_num_threads(1)  # a fork has only the thread that called it
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    if len(words) == 1:
        die_and_resume(model, tokenizer, folder, words[0])
        return
    small_run(model, tokenizer, folder)
    print(ENDED, flush=True)
    if words:
        broken, point = words
        if processes.distributed_state().is_last_process:
            killer(point, broken)
        small_run(*sealkit.load_quantized("bundled", "cpu"), broken)


def die_and_resume(model, tokenizer, folder, seed):
    gc.freeze()  # what is loaded need not be looked through at each collection of each fork
    status, _, counts = fork(model, tokenizer, Path(folder) / "unbroken")
    if status:
        sys.exit("the unbroken run failed")
    draw = random.Random(int(seed))
    points = [
        f"{kind}:{number}"
        for kind, many in POINTS.items()
        for number in sorted(draw.sample(range(1, counts[kind] + 1), many))
    ]
    for point in points:
        run = Path(folder) / point.replace(":", "_")
        status, _, _ = fork(model, tokenizer, run, point)
        again, lines, _ = fork(model, tokenizer, run)
        row = {"point": point, "of": counts[point.split(":")[0]], "folder": str(run), "log": lines}
        row["signal"], row["resumed"] = map(os.waitstatus_to_exitcode, (status, again))
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
