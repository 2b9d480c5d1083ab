"""Opt-in (pytest -m browser): each notebook in JupyterLab, a run's report.html, and the page of
`ask --web`, in a headless Chromium. Needs Chromium with its driver, and selenium."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from threading import Thread

import nbformat
import pytest
from test_page import made_up, run_of_puzzles, run_of_streams

from sealkit.cli.main import main
from sealkit.cli.page import write_page
from sealkit.cli.record import read_record
from sealkit.cli.web import make_server

pytestmark = pytest.mark.browser
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
PROBLEMS = """
return {
  cells: document.querySelectorAll('.jp-Notebook .jp-Cell').length,
  pictures: [...document.querySelectorAll('.jp-OutputArea-output img')]
    .map(img => img.naturalWidth),
  equations: document.querySelectorAll('mjx-container').length,
  errors: [...document.querySelectorAll('[data-mime-type="application/vnd.jupyter.stderr"]'
    + ', .jp-mod-error, mjx-merror')].map(e => e.innerText),
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that serves a copy of the notebooks."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS[0].parent, folder / "notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--port={port}",
        "--ServerApp.token=",
        "--allow-root",
        "notebooks/",
    ]
    server = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ
        | {
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        },
    )
    address = f"http://127.0.0.1:{port}/lab"
    try:
        for _ in range(60):
            try:
                urllib.request.urlopen(
                    f"{address}/api/settings/@jupyterlab/apputils-extension:notification", timeout=5
                )
                break
            except OSError:
                assert server.poll() is None, "JupyterLab ended"
                time.sleep(1)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason='pip install -e ".[browser]"')
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--window-size=1300,20000",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )
    yield driver
    driver.quit()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_renders_in_jupyterlab(path, lab, browser, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    pictures = sum(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    browser.get(f"{lab}/workspaces/{path.stem}/tree/{path.name}")
    for _ in range(60):
        time.sleep(1)
        seen = browser.execute_script(PROBLEMS)
        if (
            seen["cells"] == len(notebook.cells)
            and len(seen["pictures"]) == pictures
            and all(seen["pictures"])
        ):
            break
    browser.save_screenshot(tmp_path / f"{path.stem}.png")
    print(f"screenshot: {tmp_path / path.stem}.png")
    assert (
        seen["cells"] == len(notebook.cells)
        and len(seen["pictures"]) == pictures
        and all(seen["pictures"])
        and pictures
    )
    assert seen["errors"] == []
    # Not the entries of "network" and "intervention": offline, the badge does not load, and
    # Chromium remarks on that.
    assert not [
        entry
        for entry in browser.get_log("browser")
        if entry["source"] in ("javascript", "console-api")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("kind", ["passages", "puzzles", "streams"])
def test_the_page_of_a_run_opens_without_a_complaint(kind, width, scheme, browser, tmp_path):
    made = {"passages": lambda folder: (made_up(),), "puzzles": run_of_puzzles}
    record, *_ = made.get(kind, run_of_streams)(tmp_path)
    write_page(record, tmp_path / "report.html")
    size = {"width": width, "height": 3000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get("about:blank")  # leaves JupyterLab, on which Chromium remarks
    browser.get_log("browser")
    browser.get(f"file://{tmp_path}/report.html")
    assert browser.get_log("browser") == []
    wide, ground = browser.execute_script(
        "return [document.documentElement.scrollWidth,"
        " getComputedStyle(document.body).backgroundColor]"
    )
    assert wide == width and (ground == "rgb(255, 255, 255)") == (scheme == "light")
    fetched = "return performance.getEntriesByType('resource').map(e => e.name)"
    assert [one for one in browser.execute_script(fetched) if not one.startswith("data:")] == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="module")
def teaching(tmp_path_factory):
    """(the Record of a small run, the address of its page of `ask --web`)."""
    folder = tmp_path_factory.mktemp("teaching") / "run"
    sizes = "--passages 2 --self-edits 2 --iterations 1 --held-out 2".split()
    assert not main([*sizes, "--output", str(folder)])
    with make_server(read_record(folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield read_record(folder), f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_someone_teaches_a_passage_on_the_page(teaching, browser):
    """Choose, edit, learn, ask; Enter asks what is typed, and nothing that was typed is lost."""
    record, address = teaching
    browser.get(address)
    browser.get_log("browser")

    def find(selector):
        return browser.find_element("css selector", selector)

    find("option[value='2']").click()
    find("button[value=choose]").click()
    second = record.test[1]
    trial = record.tried[record.last][1]
    assert second.text in find("body").text
    assert find("#edit").get_attribute("value") == trial.self_edit
    find("button[value=learn]").click()
    assert f"→ {trial.losses[-1]:.2f}." in find("[role=status]").text
    find("button[value=all]").click()
    adapted = browser.find_elements("css selector", "td:nth-child(2)")
    assert [cell.text[:-2] for cell in adapted] == trial.answers

    find("#edit").clear()
    find("button[value=learn]").click()
    assert "There is no line in the self-edit" in find("[role=alert]").text
    false = f"Question: {second.questions[0].question} Answer: tin"
    find("#edit").send_keys(false)
    find("input[name=question]").send_keys("Who?\n")  # Enter
    assert find("#edit").get_attribute("value") == false
    assert find("td").text == "Who?" and "nobody knows" in find("table").text
    find("button[value='1']").click()
    assert find("td").text == second.questions[0].question
    assert browser.get_log("browser") == []
    fetched = "return performance.getEntriesByType('resource').map(e => e.name)"
    assert [one for one in browser.execute_script(fetched) if not one.startswith("data:")] == []
