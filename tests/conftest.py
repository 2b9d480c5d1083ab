"""What the tests share: the bundled model, its policy, and the paper's data where it is at hand."""

import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads of two workers would spin
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # nothing compiles, and processes start faster

import pytest
import torch

import sealkit
from sealkit.models.unpacking import quantized_layers, set_compute_dtype

os.environ["SEALKIT_MODEL"] = "bundled"  # also on a machine whose GPU could carry more
os.environ.pop("SEALKIT_DATA", None)
LONGEST = [  # half a minute and more each, alone on a core
    "test_processes",
    "test_run_folders",
    "test_notebooks_real",
    "test_assignments",
    "06_few_shot_puzzles",
    "05_evaluation",
    "04_restem_outer_loop",
    "07_continual_learning",
    "08_open_questions",
    "03_qlora_inner_loop",
    "test_untrusted",
    "test_cache",
    "test_notebooks",
    "test_main",
]
PAPER = Path(__file__).parents[2] / "shared" / "paper"


def pytest_collection_modifyitems(items):
    """The longest files first; tests marked `gpu` say why they are skipped where there is none."""
    names = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: names.get(item.path.stem, len(names)))
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            reason = "needs a CUDA GPU, and torch sees none on this machine"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def model_and_tokenizer():
    """A 4-bit model of one's own: what one test attaches to it never reaches the next."""
    return sealkit.load_quantized()


@pytest.fixture(scope="session")
def loaded():
    """The one 4-bit model of all tests that attach nothing lasting to it."""
    return sealkit.load_quantized()


@pytest.fixture(scope="session")
def only_policy():
    model, tokenizer = sealkit.load_quantized()
    config = sealkit.config_for(tokenizer)
    return sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)


@pytest.fixture
def policy(only_policy):
    """The one Policy of all tests; whatever a test does to its LoRA is undone."""
    start = only_policy.weights()
    yield only_policy
    only_policy.load(start)
    only_policy.model.zero_grad()


@pytest.fixture
def exact(policy):
    """Have its 4-bit products in fp32: the order of sums is then all that a batch's width changes.

    In bf16 a last digit may also round to its neighbour, and the differences grow.
    """
    before = quantized_layers(policy.model)[0].compute_dtype
    set_compute_dtype(policy.model, torch.float32)
    yield
    set_compute_dtype(policy.model, before)


@pytest.fixture(scope="session")
def validation():
    return sealkit.load_passages("bundled", "validation")


@pytest.fixture
def paper():
    """A function that reads one of the paper's data files."""

    def read(name):
        path = PAPER / name
        if not path.is_file():
            pytest.skip(f"the paper's data file {name} is not beside this checkout")
        text = path.read_text(encoding="utf-8")
        lines = [text] if name.endswith(".json") else text.splitlines()
        values = [json.loads(line) for line in lines]
        return values[0] if name.endswith(".json") else values

    return read


@pytest.fixture(scope="session")
def base_bytes():
    """A function that returns all of a model but its LoRA, with quantization tables, as bytes."""

    def read(model):
        held = {}
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                continue
            name = name.replace("base_model.model.", "").replace(".base_layer", "")
            tensors = [parameter]
            if state := getattr(parameter, "quant_state", None):
                tensors += [state.absmax, state.code, state.offset]
                tensors += [state.state2.absmax, state.state2.code]
            held[name] = b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in tensors)
        return held

    return read
