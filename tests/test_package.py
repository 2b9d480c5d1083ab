"""What pip reads: the declared ranges admit what Colab has installed, so that the set-up cell changes none of it."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
COLAB = {"torch": "2.11.0+cu128", "transformers": "5.15.0", "peft": "0.20.0", "accelerate": "1.14.0", "numpy": "2.1.0"}  # August 2026
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def declared():
    """The dependencies of pyproject.toml: {name: Requirement}. Read by hand, since Python 3.10 has no tomllib."""
    block = re.search(r"^dependencies = \[\n(.*?)^\]", PROJECT, re.M | re.S)[1]
    return {req.name: req for req in map(Requirement, re.findall(r'"([^"]+)"', block))}


@pytest.mark.parametrize("package", COLAB)
def test_colabs_version_is_admitted(package):
    assert declared()[package].specifier.contains(COLAB[package])


def test_python_of_colab_is_admitted():
    assert SpecifierSet(re.search(r'requires-python = "(.*)"', PROJECT)[1]).contains("3.13.0")


def test_only_what_colab_lacks_would_be_installed():
    """bitsandbytes is missing there; matplotlib, pyarrow, pydantic and tqdm are part of Colab, in versions long past our lower bounds.

    filelock and psutil, of any version, come with its torch and accelerate.
    """
    assert set(declared()) - set(COLAB) == {"bitsandbytes", "matplotlib", "pyarrow", "pydantic", "tqdm", "filelock", "psutil"}
    assert not declared()["filelock"].specifier and not declared()["psutil"].specifier
    assert all(requirement.marker is None and not requirement.extras for requirement in declared().values())


def test_pinned_versions_lie_within_the_declared_ranges_and_are_those_tested():
    from importlib.metadata import version

    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().split() if "==" in line)
    for name, requirement in declared().items():
        assert requirement.specifier.contains(pins[name]), name
    assert set(declared()) <= set(pins) and version("peft") == pins["peft"]


def test_a_range_that_is_too_narrow_would_be_noticed():
    assert not Requirement("peft>=0.21").specifier.contains(COLAB["peft"])
    assert sys.version_info >= (3, 10)
