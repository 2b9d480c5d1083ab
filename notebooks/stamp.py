"""python notebooks/stamp.py [https://github.com/OWNER/REPOSITORY]

Writes the repository's address into the badges and the set-up cells of all notebooks,
into the README and into CITATION.cff. The address lives in pyproject.toml, under
[project.urls]; given as an argument, it is changed there first. For a fork.
"""

import re
import sys
from pathlib import Path

ADDRESS = r"https://github\.com/([\w.-]+/[\w.-]+)"
HOSTS = (
    r"colab\.research\.google\.com/github|mybinder\.org/v2/gh|git\+https://github\.com"
    r'|repository-code: "https://github\.com'
)
LINKS = rf"((?:{HOSTS})/)[\w.-]+/[\w.-]+"
LINE = rf'(?m)^Repository = "{ADDRESS}"$'


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
        stamped = re.sub(LINKS, rf"\g<1>{repository}", path.read_text("utf-8"))
        path.write_text(stamped, "utf-8")
    return repository


if __name__ == "__main__":
    try:
        print("Stamped with", stamp(Path(__file__).parents[1], *sys.argv[1:2]))
    except ValueError as error:
        sys.exit(f"stamp.py: {error}")
