"""python notebooks/students.py [FOLDER]

Makes what a course hands out, in FOLDER ("students", unless named) and in FOLDER.zip:
the lessons with empty "Your turn" cells and without outputs, and nbgrader's release of
the assignments, without solutions and hidden tests. For teachers: see README.md.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from nbconvert.exporters import NotebookExporter
from nbconvert.preprocessors import ClearMetadataPreprocessor, ClearOutputPreprocessor
from nbgrader.preprocessors import ClearSolutions

STUB = """\
# YOUR CODE HERE
raise NotImplementedError("Your turn: write this function, and run its cell again.")"""
EMPTIED = [  # nothing is folded any more but what Colab folds
    ClearSolutions(enforce_metadata=False, code_stub={"python": STUB}),
    ClearOutputPreprocessor(enabled=True),
    ClearMetadataPreprocessor(
        enabled=True,
        clear_notebook_metadata=False,
        preserve_cell_metadata_mask={"tags", "cellView"},
    ),
]


def hand_out(notebooks: Path, folder: Path) -> None:
    """Make `folder` and its zip file from the folder of lessons and assignments.

    Raises subprocess.CalledProcessError where nbgrader refuses an assignment.
    """
    exporter = NotebookExporter(preprocessors=EMPTIED)
    (folder / "lessons").mkdir(parents=True, exist_ok=True)
    for path in sorted(notebooks.glob("*.ipynb")):
        text, _ = exporter.from_filename(str(path))
        (folder / "lessons" / path.name).write_text(text, "utf-8")
    course = notebooks / "assignments"
    release = f"--CourseDirectory.release_directory={folder / 'assignments'}"
    for path in sorted((course / "source").iterdir()):
        command = ["nbgrader", "generate_assignment", path.name, "--force", release]
        subprocess.run([sys.executable, "-m", *command], cwd=course, check=True)
    shutil.make_archive(str(folder), "zip", folder)


if __name__ == "__main__":
    made = Path(*sys.argv[1:2] or ["students"]).resolve()
    hand_out(Path(__file__).resolve().parent, made)
    print(f"Hand out {made}.zip, or the notebooks in {made}.")
