"""A small SEAL run that is killed at random points: `python tests/killed.py FOLDER SEED`.

The model is loaded once. A fork of this process runs to its end in `FOLDER/unbroken`; for each point, another is killed
there with SIGKILL, and one more resumes it. Points are `module:N` (before the N-th call of any module), `file:N` (before
the N-th time that a file of the run is opened, renamed or cut), `record:N` and `adapter:N` (with half of the N-th record,
or of the N-th adapter, written). Prints a JSON line for each point: how the run ended, and the log of the resumed one.
"""

import json
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import peft.peft_model
import torch

import sealkit
from sealkit import runs, self_edits

CACHE_BYTES = 2_000_000  # several parts of self-edits
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
        if event in ("open", "os.rename", "os.mkdir", "os.truncate") and str(folder) in str(arguments[0]):
            happens("file")

    class File:
        def __init__(self, *arguments, **options):
            self.file = open(*arguments, **options)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            if kind == "record" and seen["record"] + 1 == int(number):
                self.file.write(data[: len(data) // 2])
            happens("record")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    def save(tensors, path, **options):
        save_whole(tensors, path, **options)
        if kind == "adapter" and seen["adapter"] + 1 == int(number):
            os.truncate(path, os.path.getsize(path) // 2)
        happens("adapter")

    sys.addaudithook(audit)
    torch.nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: happens("module"))
    runs.open, save_whole, peft.peft_model.safe_save_file = File, peft.peft_model.safe_save_file, save
    return seen


def fork(model, tokenizer, folder, point="none"):
    """Run in a fork: (its wait status, lines of its log, what it counted)."""
    log, counts = folder.with_suffix(".log"), folder.with_suffix(".json")
    if not (child := os.fork()):
        status = 1
        try:
            seen = killer(point, folder)
            with open(log, "w", encoding="utf-8") as file:
                small_run(model, tokenizer, folder, log=lambda line: print(line, file=file, flush=True))
            counts.write_text(json.dumps(seen))
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1], log.read_text(encoding="utf-8").splitlines(), json.loads(counts.read_text()) if counts.exists() else {}


def small_run(model, tokenizer, folder, **changes):
    """Two iterations over two passages with two self-edits each."""
    options = {"settings": sealkit.Settings(steps=2, adapters_per_pass=4), "reinforcement": sealkit.Reinforcement(epochs=1), "seed": 3}
    return sealkit.run_seal(model, tokenizer, sealkit.load_passages("bundled", limit=2), 2, 2, folder, **options | changes)


def main(folder, seed):
    torch.set_num_threads(1)  # a fork has only the thread that called it
    self_edits.CACHE_BYTES = CACHE_BYTES
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    status, _, counts = fork(model, tokenizer, Path(folder) / "unbroken")
    if status:
        sys.exit("the unbroken run failed")
    draw = random.Random(int(seed))
    points = [f"{kind}:{number}" for kind, many in POINTS.items() for number in sorted(draw.sample(range(1, counts[kind] + 1), many))]
    for point in points:
        run = Path(folder) / point.replace(":", "_")
        status, _, _ = fork(model, tokenizer, run, point)
        again, lines, _ = fork(model, tokenizer, run)
        print(json.dumps({"point": point, "of": counts[point.split(":")[0]], "folder": str(run), "signal": os.waitstatus_to_exitcode(status),
                          "resumed": os.waitstatus_to_exitcode(again), "log": lines}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
