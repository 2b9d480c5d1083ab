"""python notebooks/stamp.py [https://github.com/OWNER/REPOSITORY]

Writes the repository's address into the badges, set-up cells, pictures and links of
all notebooks, into the README and into CITATION.cff. Pictures and links are absolute,
so that they also work in a copy of a notebook that lies alone in a Drive. The address
lives in pyproject.toml, under [project.urls]; given as an argument, it is changed there
first. For a fork.
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
PAGES = r"(\]\(https://(?:github|raw\.githubusercontent)\.com/)[\w.-]+/[\w.-]+"
PAGES += r"(?=/(?:blob/)?main/(?:notebooks|sealkit|tests)/)"
RELATIVE = r"(?<=\]\()(?![a-z]+:|#)([^()\s\"#]+)(?=[)#])"
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
            stamped = absolute(stamped, path, root, repository)
        path.write_text(stamped, "utf-8")
    return repository


if __name__ == "__main__":
    try:
        print("Stamped with", stamp(Path(__file__).parents[1], *sys.argv[1:2]))
    except ValueError as error:
        sys.exit(f"stamp.py: {error}")
