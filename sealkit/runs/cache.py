"""TODO."""

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from tqdm.auto import tqdm

from .processes import broadcast, distributed_state, progress_disabled


def compute_missing(cache, keys, compute, width, title=None):
    """[cache[key] for key in keys]; what is missing, `compute` makes, `width` keys at a time.

    compute: keys -> values, such as one pass of the inner loop. Each part of `width` keys is noted
    when it is done; one that is not wholly known is computed whole, so that bits are those of an
    unbroken run. Parts are dealt to the processes of torchrun or `accelerate launch`. When memory
    runs out, compute gets half as many keys from there on. title: of a terminal's bar, if any.

    >>> cache, square = {("square", 2): 4}, lambda keys: [n * n for _, n in keys]
    >>> remembered(cache, [("square", 2), ("square", 3)], square, width=1)
    [4, 9]
    """
    state, parts = distributed_state(), [keys[i : i + width] for i in range(0, len(keys), width)]
    missing = [part for part in parts if not cache.keys() >= set(part)]
    mine = missing[state.process_index :: state.num_processes]
    width = max(map(len, mine), default=1)  # what is tried, where fewer are left than are allowed

    def halved(error):
        if width == 1 or not should_reduce_batch_size(error):
            raise error
        clear_device_cache(garbage_collection=True)
        half = -(-width // 2)
        tqdm.write(f"Memory ran out with {width} side by side: going on with {half}.")
        return half

    for part in tqdm(mine, title, leave=False, disable=progress_disabled() if title else True):
        values = [cache[key] for key in part] if cache.keys() >= set(part) else []
        while len(values) < len(part):
            try:
                values += compute(part[len(values) :][:width])
            except RuntimeError as error:
                width = halved(error)
        if new := {k: v for k, v in zip(part, values, strict=True) if k not in cache}:
            cache.update(new)  # what is known stays, so that what was made of it stays true
    own = {key: cache[key] for part in mine for key in part}
    for rank in range(min(len(missing), state.num_processes)):  # a gathered policy would be N large
        dict.update(cache, broadcast(own, rank))
    return [cache[key] for key in keys]
