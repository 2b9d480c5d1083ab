"""Results by key: compute only what is missing, in batches that fit memory, on all processes."""

from collections.abc import Callable, Sequence
from typing import Any

from accelerate.utils.memory import clear_device_cache
from tqdm.auto import tqdm

from .errors import explain, is_out_of_memory
from .files import RunError
from .processes import broadcast, distributed_state, progress_disabled

Key = tuple[Any, ...]  # such as ("trial", iteration, item, candidate)
Cache = dict[Key, Any]  # a plain one, or a `Journal`


def compute_missing(
    cache: Cache,
    keys: Sequence[Key],
    compute: Callable[[list[Key]], list[Any]],
    batch_size: int,
    title: str | None = None,
) -> list[Any]:
    """[cache[key] for key in keys]; `compute` makes what is missing, `batch_size` keys at a time.

    compute: keys -> values, such as one pass of the inner loop. Each batch is stored when it is
    done; one that is only partly there is computed whole, so that bits are those of an unbroken
    run. Batches are dealt to the processes of torchrun or `accelerate launch`. When memory runs
    out, compute gets half as many keys from there on; with one key, that is a RunError. title: of a
    terminal's progress bar, if any.

    >>> cache, square = {("square", 2): 4}, lambda keys: [n * n for _, n in keys]
    >>> compute_missing(cache, [("square", 2), ("square", 3)], square, batch_size=1)
    [4, 9]
    """
    # 1. the batches that are missing, and this process's share of them
    state = distributed_state()
    batches = [list(keys[i : i + batch_size]) for i in range(0, len(keys), batch_size)]
    missing = [batch for batch in batches if not cache.keys() >= set(batch)]
    mine = missing[state.process_index :: state.num_processes]
    width = max(map(len, mine), default=1)  # what is tried, where fewer are left than are allowed

    # 2. compute and store each; out of memory, with half the width
    bar = progress_bar(sum(map(len, mine)), title)
    for batch in mine:
        values = [cache[key] for key in batch] if cache.keys() >= set(batch) else []
        while len(values) < len(batch):
            try:
                values += compute(batch[len(values) :][:width])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if width == 1:
                    raise RunError(explain(error)) from error
                clear_device_cache(garbage_collection=True)
                half = -(-width // 2)
                tqdm.write(f"Memory ran out with {width} side by side: going on with {half}.")
                width = half
        if new := {k: v for k, v in zip(batch, values, strict=True) if k not in cache}:
            cache.update(new)  # what is there stays, so that what was made of it stays true
        bar.update(len(batch))
    bar.close()

    # 3. exchange: only in memory, since a Journal's file has what its own process computed
    computed = {key: cache[key] for batch in mine for key in batch}
    for rank in range(min(len(missing), state.num_processes)):  # one by one: a gather holds N
        dict.update(cache, broadcast(computed, rank))
    return [cache[key] for key in keys]


def progress_bar(count: int, title: str | None) -> tqdm:
    """A terminal's bar that counts keys, with the time left; of a single key, its title alone."""
    form = "{desc}: {n_fmt}/{total_fmt} |{bar:20}| {elapsed}, {remaining} left"
    form = form if count > 1 else "{desc} ..."
    disable = progress_disabled() if title and count else True
    return tqdm(total=count, desc=title, leave=False, disable=disable, bar_format=form)
