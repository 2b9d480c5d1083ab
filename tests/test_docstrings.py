"""Each public function and class says what it does, with an example; and the examples run."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import sealkit

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(sealkit.__path__, "sealkit.")
    if name != "sealkit.cli.main"
]
PUBLIC = {
    name: value
    for name, value in vars(sealkit).items()
    if inspect.isfunction(value) or inspect.isclass(value)
}


def test_every_public_name_has_an_example():
    assert {"run_seal", "Config", "grade", "RunError"} < PUBLIC.keys()
    lacking = [name for name, value in PUBLIC.items() if ">>>" not in (inspect.getdoc(value) or "")]
    assert not lacking, f"without a >>> example in the docstring: {', '.join(lacking)}"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert not failed
    assert not any(tmp_path.iterdir()), "an example should leave no files"
