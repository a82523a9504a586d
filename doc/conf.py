"""Configuration of Sphinx; nothing is fetched while the pages are built."""

import sys
from pathlib import Path

import skpou

sys.path.insert(0, str(Path(__file__).parent))
from draw_house import draw_where_old

draw_where_old()

project = "skpou"
author = "skpou developers"
copyright = "2026, skpou developers"
version = release = skpou.__version__

extensions = ["numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax"]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False  # the template of classes lists them

html_static_path = ["_static"]
html_css_files = ["results.css"]
html_theme = "pydata_sphinx_theme"
html_title = "skpou"
# The left bar lists the pages of a section; these are sections without further pages.
html_sidebars = {
    page: []
    for page in (
        *("user_guide", "examples", "benchmarks"),
        *("equations", "installation", "carry_on"),
    )
}
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
