"""Settings of Sphinx. `make docs` builds the pages; nothing is fetched for them."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ.setdefault("KERAS_BACKEND", "jax")

import generate  # noqa: E402

from keras_taskrobust import __version__  # noqa: E402

project = "keras_taskrobust"
author = "The keras_taskrobust developers"
copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx_copybutton"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["build"]
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = True
maximum_signature_line_length = 88
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = "keras_taskrobust"
html_static_path = ["static"]
html_css_files = ["taskrobust.css"]
html_copy_source = False
html_show_sphinx = False


def setup(app):
    """Writes the generated pages before Sphinx looks for sources."""
    generate.write_all(HERE / "generated")
