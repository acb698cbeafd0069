"""How Sphinx builds the documentation: `make docs`."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Flybridge"
author = "The Flybridge authors"
copyright = author
release = version = installed("flybridge")

extensions = [
    "generated",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_ext", "Thumbs.db", ".DS_Store"]
html_theme = "furo"
html_title = "Flybridge"
html_static_path = ["_static"]
html_css_files = ["flybridge.css"]
html_copy_source = False

# Markdown
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

# Docstrings: `name` in them is code. What they say of a class stands above its members.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# A reference that leads nowhere is an error. Types of others have no page here, nor have type
# variables and what only signatures name.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!flybridge\.).*"),
    (r"py:.*", r".*\.(_\w+|\w+T|\w+T_co)"),
    (r"py:.*", r".*\.(Written|Unwise|Options|Keys|Worker|Endpoint|Beat)"),
]
