"""What the tests share: the bundled model, loaded once a module, and the paper's data where it is at hand."""

import json
import os
from pathlib import Path

import pytest
import torch

import sealkit

os.environ["SEALKIT_MODEL"] = "bundled"  # also on a machine whose GPU could carry more
os.environ.pop("SEALKIT_DATA", None)
PAPER = Path(__file__).parents[2] / "shared" / "paper"


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` say why they are skipped where there is no GPU."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU, and torch sees none on this machine"))


@pytest.fixture
def model_and_tokenizer():
    """A fresh 4-bit model for each test: what one test attaches to it never reaches the next."""
    return sealkit.load_quantized()


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
        return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    return read


@pytest.fixture(scope="session")
def base_bytes():
    """A function that returns every parameter of a model outside its LoRA, with quantization tables, as bytes."""
    def read(model):
        held = {}
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                continue
            name = name.replace("base_model.model.", "").replace(".base_layer", "")
            tensors = [parameter]
            if state := getattr(parameter, "quant_state", None):
                tensors += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
            held[name] = b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in tensors)
        return held
    return read
