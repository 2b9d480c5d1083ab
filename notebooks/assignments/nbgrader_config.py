"""nbgrader's configuration: run nbgrader in this folder. See README.md."""

c = get_config()  # noqa: F821, defined by nbgrader

c.CourseDirectory.course_id = "sealkit"
# seconds for one cell; nbgrader's 30 are short for a first import on a slow machine
c.Execute.timeout = 300

# Whatever a test cell prints on stderr would make nbgrader give it 0 points. But a
# student's function may warn or show a progress bar when a test calls it: that costs
# nothing here. Errors are no stderr, they still cost the points.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"\A"

# `nbgrader zip_collect` takes files named STUDENT_ASSIGNMENT.ipynb, such as
# ada_01_quantized_loading.ipynb.
c.FileNameCollectorPlugin.named_regexp = (
    r"(.*/)?(?P<student_id>[^/_]+)_(?P<file_id>0\d_[a-z_]+)"
)
