"""python notebooks/stamp.py [https://github.com/OWNER/REPOSITORY]

Writes the repository's address into the badges, set-up cells, pictures and links of
all notebooks, into the README and into CITATION.cff, and COLAB_CELL into notebook 4.
Pictures and links are absolute, so that they also work in a copy of a notebook that
lies alone in a Drive. The address lives in pyproject.toml, under [project.urls]; given
as an argument, it is changed there first. For a fork.
"""

import json
import re
import sys
from pathlib import Path

ADDRESS = r"https://github\.com/([\w.-]+/[\w.-]+)"
HOSTS = (
    r"colab\.research\.google\.com/github|mybinder\.org/v2/gh|git\+https://github\.com"
    r'|repository-code: "https://github\.com'
)
LINKS = rf"((?:{HOSTS})/)[\w.-]+/[\w.-]+"
PAGES = r"(\]\(https://(?:github|raw\.githubusercontent)\.com/)[\w.-]+/[\w.-]+"
PAGES += r"(?=/(?:blob/)?main/(?:notebooks|sealkit|tests)/)"
RELATIVE = r"(?<=\]\()(?![a-z]+:|#)([^()\s\"#]+)(?=[)#])"
COLAB_CELL = """\
# @title Mistral-7B in Colab, in a free session: remove each "# " below (unfolded)
# Takes 15 GB to download, 9 GiB of a T4's 14.7 and, computed, not measured, 12 to 33
# minutes. Licence: https://huggingface.co/mistralai/Mistral-7B-v0.1 (where it asks,
# accept it, and put your account's token into Colab's secrets, as HF_TOKEN).
# from google.colab import drive, userdata
# drive.mount("/content/drive")  # cut off? the same cell goes on from run_dir
# os.environ["HF_TOKEN"] = userdata.get("HF_TOKEN")
# loaded = sealkit.load_quantized("mistralai/Mistral-7B-v0.1")
# ten = [sealkit.load_passages("squad", part, 10) for part in ("train", "test")]
# run_dir = "/content/drive/MyDrive/seal"
# run = sealkit.run_seal(*loaded, ten[0], iterations=1, k=3, run_dir=run_dir)
# print(run.iterations[0])
# policies = {"before RL": run.start, "after": run.iterations[0].weights}
# print(sealkit.compare(run.model, loaded[1], ten[1], policies))"""
LINE = rf'(?m)^Repository = "{ADDRESS}"$'


def absolute(text: str, path: Path, root: Path, repository: str) -> str:
    """A notebook's text, each relative link to a file made an absolute one."""

    def address(match: re.Match) -> str:
        file = (path.parent / match[1]).resolve()
        if not (file.is_file() and file.is_relative_to(root.resolve())):
            return match[0]
        place = file.relative_to(root.resolve()).as_posix()
        if file.suffix in (".svg", ".png"):
            return f"https://raw.githubusercontent.com/{repository}/main/{place}"
        return f"https://github.com/{repository}/blob/main/{place}"

    return re.sub(RELATIVE, address, text)


def with_colab_cell(text: str) -> str:
    """Notebook 4's text, COLAB_CELL in its cell "colab"; other texts as they are."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["id"] == "colab":
            cell["source"] = COLAB_CELL.splitlines(keepends=True)
            return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    return text


def stamp(root, address=None):
    """Stamp the checkout at `root`; returns the repository, "owner/name".

    Raises ValueError for an address that is not on GitHub.
    """
    project = root / "pyproject.toml"
    text = project.read_text("utf-8")
    if address:
        if not re.fullmatch(ADDRESS, address):
            raise ValueError(
                f"{address!r} is not a repository on GitHub: "
                "give https://github.com/OWNER/REPOSITORY."
            )
        text = re.sub(LINE, f'Repository = "{address}"', text)
        project.write_text(text, "utf-8")
    repository = re.search(LINE, text)[1]
    pages = root / "README.md", root / "CITATION.cff"
    for path in (*pages, *sorted((root / "notebooks").rglob("*.ipynb"))):
        stamped = path.read_text("utf-8")
        for links in (LINKS, PAGES):
            stamped = re.sub(links, rf"\g<1>{repository}", stamped)
        if path.suffix == ".ipynb":
            stamped = with_colab_cell(absolute(stamped, path, root, repository))
        path.write_text(stamped, "utf-8")
    return repository


if __name__ == "__main__":
    try:
        print("Stamped with", stamp(Path(__file__).parents[1], *sys.argv[1:2]))
    except ValueError as error:
        sys.exit(f"stamp.py: {error}")
