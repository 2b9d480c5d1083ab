"""Whatever the libraries or the system raise is one sentence, with the remedy for that kind."""

import os
import re
import resource
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from families import save
from huggingface_hub import HfApi
from huggingface_hub import constants as hub_constants
from huggingface_hub import errors as hub_errors
from small_runs import ONE_THREAD, ended, loaded, unbroken

import sealkit
from sealkit import loading
from sealkit.cli.main import main
from sealkit.cli.record import read_record
from sealkit.runs import processes
from sealkit.runs.errors import explain
from sealkit.runs.folder import new_run_folder

httpx = sys.modules[hub_errors.HTTPError.__module__.split(".")[0]]  # the one that the hub takes
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 14483464192\n"


# --- the network


@pytest.fixture
def answering(monkeypatch):
    """A function: from then on the hub is a server here that answers each question so."""
    servers = []

    def start(status, page):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *args):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[0].serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{servers[0].server_port}"
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(loading, "model_info", HfApi(endpoint=endpoint).model_info)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "status, remedy",
    [
        (200, "perhaps a network's login page: log in with a browser, check HF_ENDPOINT"),
        (403, r"proxy or firewall forbids http\S+ \(403\): ask whoever runs the network"),
        (407, r"asks who you are \(407\): write them into HTTPS_PROXY"),
        (429, r"too many requests from here \(429\): wait some minutes, put a token into HF_TOKEN"),
        (500, r"out of order \(500\): try again later"),
        (503, r"out of order \(503\): try again later"),
    ],
)
def test_what_a_network_answers_in_the_hubs_place(answering, status, remedy):
    answering(status, b"<html><body>Please log in to the network</body></html>")
    with pytest.raises(sealkit.RunError, match=f"'some/model' is neither .*{remedy}") as raised:
        sealkit.load_quantized("some/model")
    assert raised.value.__cause__ and str(raised.value).endswith("or take 'bundled'.")


def raised_from(error, cause):
    error.__cause__ = cause
    return error


NOT_TRUSTED = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"
CAS = "Data processing error: CAS service error : Reqwest Error: HTTP status {}, url: https://x"
RAISED = {
    "certificate": (
        lambda: raised_from(
            httpx.ConnectError(NOT_TRUSTED), ssl.SSLCertVerificationError(1, NOT_TRUSTED)
        ),
        "not trusted here: put the path of your network's root certificate into SSL_CERT_FILE",
    ),
    "proxy 407": (lambda: httpx.ProxyError("407 Proxy Authentication Required"), "HTTPS_PROXY, as"),
    "proxy 403": (lambda: httpx.ProxyError("403 Forbidden"), "firewall forbids .* ask whoever"),
    "proxy 502": (lambda: httpx.ProxyError("502 Bad Gateway"), r"\(ProxyError: 502.*check HTTPS_P"),
    "offline": (lambda: hub_errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE .* unset it"),
    "reset": (lambda: httpx.ReadError("reset by peer"), "broke .*: try again, which goes on"),
    "cut": (lambda: httpx.RemoteProtocolError("peer closed without all"), "broke .*: try again"),
    "xet 403": (lambda: RuntimeError(CAS.format("client error (403 Forbidden)")), "firewall"),
    "xet 503": (lambda: RuntimeError(CAS.format("server error (503 Service)")), r"order \(503\)"),
    "name": (lambda: httpx.ConnectError("[Errno -2] Name or service"), "be reached: connect"),
    "slow": (lambda: httpx.ConnectTimeout("timed out"), "be reached: connect to the network"),
}


@pytest.mark.parametrize("case", RAISED)
def test_what_the_hubs_library_raises(case):
    error, remedy = RAISED[case]
    said = explain(error(), "X is not here", "go on without")
    assert said and said.startswith("X is not here, and ") and said.endswith(" or go on without.")
    assert re.search(remedy, said), said
    assert explain(error()) is None  # of what is on this machine, a network is never the reason


# --- files


def cut(data):
    return data[: len(data) // 2]


BROKEN = {
    "cut off": ("model.safetensors", cut, "damaged or not whole .*: delete it, and download"),
    "header cut off": ("model.safetensors", lambda d: d[:20], "damaged or not whole"),
    "wrong length": ("model.safetensors", lambda d: b"\xff" * 6 + d[6:], "damaged or not whole"),
    "empty": ("model.safetensors", lambda d: b"", "not whole .it is empty"),
    "pointer": ("model.safetensors", lambda d: POINTER, "Git LFS: run `git lfs pull` there"),
    "a folder": ("model.safetensors", None, "Is a directory.*delete it"),
    "tokenizer cut off": ("tokenizer.json", cut, "damaged or not whole"),
    "tokenizer a pointer": ("tokenizer.json", lambda d: POINTER, "git lfs pull"),
    "configuration cut off": ("config.json", cut, "damaged or not whole"),
    "a login page": ("config.json", lambda d: b"<html>Log in</html>", "damaged or not whole"),
    "Latin-1": ("config.json", lambda d: b'{"a": "\xe9"}', "damaged or not whole"),
    "a folder for JSON": ("config.json", None, "Is a directory.*delete it"),
    "nonsense": ("config.json", lambda d: d.replace(b"128", b'"x"'), "expected int, got str"),
    "other JSON": ("tokenizer.json", lambda d: b"{}", "No model could be loaded .*KeyError"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_of_a_checkpoint_is_named(tmp_path, case):
    name, change, remedy = BROKEN[case]
    folder = save("mistral", tmp_path / "model")
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).mkdir() if change is None else (folder / name).write_bytes(change(data))
    with pytest.raises(ValueError, match=f"(?s){remedy}") as raised:
        sealkit.load_quantized(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)
    assert raised.value.__cause__ not in (None, raised.value)
    if "expected" not in remedy and "KeyError" not in remedy:
        assert name in str(raised.value)


def test_a_broken_file_of_the_hubs_cache_is_named_without_a_network(monkeypatch, tmp_path):
    cached = tmp_path / "models--some--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    folder = save("mistral", cached / "snapshots" / ("0" * 40))
    (folder / "config.json").write_text("{")
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"config.json' is damaged or not whole"):
        sealkit.load_quantized("some/model")


@pytest.mark.parametrize(
    "place, says",
    [
        ("m.gguf", "does not exist here: check the spelling"),
        ("owner/m.gguf", "does not exist here"),
        ("/no/such/folder", "does not exist here"),
        ("a b", "does not exist here"),
        (__file__, "is a file: give 'bundled', or a folder"),
    ],
)
def test_a_mistyped_place_is_not_looked_for_on_the_hub(place, says, monkeypatch):
    monkeypatch.setattr(loading, "load_pretrained", None)
    with pytest.raises(ValueError, match=f"^{place!r} {says}"):
        sealkit.load_quantized(place)


@pytest.mark.parametrize("data, says", [(b"", "empty"), (POINTER, "lfs pull"), (b"GGUF", "whole")])
def test_a_broken_gguf_file(tmp_path, data, says):
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(ValueError, match=says):
        sealkit.load_quantized(tmp_path / "m.gguf")


# --- the machine


@contextmanager
def as_another_user():
    """Within this context root is nobody; whoever else runs the tests stays who they are."""
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)


def save_where_no_room_is(folder):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        safetensors.torch.save_file({"x": torch.ones(1000)}, folder / "x.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_to_a_full_disk(folder):
    with open("/dev/full", "w") as file:
        file.write("x")


def load_half(folder):
    safetensors.torch.save_file({"x": torch.ones(1000)}, folder / "x.safetensors")
    (folder / "x.safetensors").write_bytes(cut((folder / "x.safetensors").read_bytes()))
    safetensors.torch.load_file(folder / "x.safetensors")


def read_anothers(folder):
    (folder / "secret").write_text("")
    os.chmod(folder / "secret", 0)
    with as_another_user():
        (folder / "secret").read_text()


def lack_memory(folder):
    [0] * 2**60


LACKS = {
    "disk": (write_to_a_full_disk, r"disk is full \(.*\): free some space"),
    "disk, of safetensors": (save_where_no_room_is, r"disk is full \(.*\): free some space"),
    "another's file": (read_anothers, r"You may not read or write a file \(.*secret.*\): have its"),
    "memory": (lack_memory, "This computer's memory ran out, .*`ulimit -v`"),
    "torch's": (lambda _: torch.empty(2**58), "This computer's memory ran out"),
    "numpy's": (lambda _: np.empty(2**58), "This computer's memory ran out"),
    "half a file": (load_half, r"A file of weights is damaged or not whole \(.*\): copy it"),
}


@pytest.mark.parametrize("case", LACKS)
def test_what_the_machine_lacks_is_one_sentence(case, tmp_path, monkeypatch, capsys):
    act, says = LACKS[case]
    monkeypatch.setattr("sealkit.cli.main.run", lambda args: act(tmp_path))
    assert main([]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert re.search(says, said), said


def test_what_nobody_foresaw_keeps_its_traceback(monkeypatch):
    def run(args):
        raise KeyError("no kind of the tables")

    monkeypatch.setattr("sealkit.cli.main.run", run)
    with pytest.raises(KeyError):
        main([])


def test_a_run_that_another_user_may_not_read(unbroken):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        run = Path(shutil.copytree(unbroken, Path(folder) / "run"))
        for name in ("policy_1/adapter_model.safetensors", "journal.jsonl", "run.json"):
            os.chmod(run / name, 0)
            with (
                as_another_user(),
                pytest.raises(sealkit.RunError, match=rf"{name}.*(have its owner|allow)"),
            ):
                read_record(run)


# --- processes and folders

LEFT = [
    {"WORLD_SIZE": "2"},
    {"PMI_SIZE": "4"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
    {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},
    {"LOCAL_RANK": "0"},
    {"WORLD_SIZE": "many"},
    {"WORLD_SIZE": ""},
]


@pytest.mark.parametrize("left", LEFT)
def test_what_a_launcher_left_in_the_environment_is_named(left, monkeypatch):
    for name in (*processes.LAUNCHED, "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "ARRIVE", 1)
    with pytest.raises(sealkit.RunError, match=f"unset {next(iter(left))}, or start all"):
        processes.await_processes.__wrapped__()


def test_show_needs_no_processes(tmp_path):
    left = LEFT[3] | {"MASTER_PORT": "29511"}
    command = [sys.executable, "-m", "sealkit", "show", "nowhere"]
    done = subprocess.run(
        command, env=ONE_THREAD | left, capture_output=True, text=True, timeout=200, cwd=tmp_path
    )
    assert done.returncode == 2 and "'nowhere' holds no run" in done.stderr


def test_jobs_that_start_at_once_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "2").mkdir(parents=True)
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: new_run_folder(), range(8)))
    assert folders == {Path(f"runs/{n}") for n in (1, *range(3, 10))}


def test_commands_to_copy_are_quoted_and_on_one_line(ended, capsys):
    folder = ended.rename(ended.with_name("my  runs, " + "long " * 20))
    assert not main(["show", str(folder)])
    lines = [s for s in capsys.readouterr().out.splitlines() if s.startswith("  python -m sealkit")]
    assert [shlex.split(s) for s in lines] == [["python", "-m", "sealkit", "show", str(folder)]]
