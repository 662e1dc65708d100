"""How Sphinx makes a site of these pages, the README and the library's docstrings: `sphinx-build -W docs site`.

Nothing is fetched when it is built or read: the theme brings its files, and formulas are text.
"""

import inspect
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

project = "emulator"
author = copyright = "the authors of emulator"
release = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
html_title = f"emulator {release}"
html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
html_static_path, html_css_files = ["site"], ["site.css"]
html_show_sphinx = False

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nb_execution_mode = "off"  # tests keep them fresh
nb_merge_streams = True
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["misc.highlighting_failure"]  # YAML with patterns that its lexer does not know

# Docstrings are Google's sections around plain English, in which `name` is code.
default_role = "code"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 100
add_module_names = False
toc_object_entries_show_parents = "hide"

FILE = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)(?:\.\./)?((?:conf|emulator|scripts|tests)\b[^)]*|[^)/]+\.cff)\)")


def sources(app, name, source):
    """The README as the first page, and files that are no pages by their names alone: the site is read without them."""
    if name == "index":
        readme = (ROOT / "README.md").read_text()
        source[0] = re.sub(r"(\]\()docs/", r"\1", readme) + source[0].partition("\n")[2]
    source[0] = FILE.sub(r"\1", source[0])


def signature(app, what, name, thing, options, text, returns):
    """The signature of a dataclass in words that Sphinx can lay out line by line: defaults that are made are dots."""
    return text and re.sub(r"<[^<>]*>", "...", text).replace("~typing.", "").replace("~", ""), returns


def is_told_by_the_class(app, what, name, thing, skip, options):
    """Fields stand in the docstring of their class, under `Attributes`, and are not listed again."""
    return skip or not (inspect.isroutine(thing) or isinstance(thing, property | classmethod))


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", sources)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", is_told_by_the_class)
