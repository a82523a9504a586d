"""Configuration of Sphinx. Without a network only the links to other projects are missing."""

import importlib
import inspect
import logging
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
# Estimators that the gallery shows link to their pages in this very build.
os.environ["SKPOU_DOCUMENTATION"] = "../generated"

from draw_house import draw_where_old  # noqa: E402
from draw_which import draw_which  # noqa: E402

import skpou  # noqa: E402

draw_where_old()
draw_which()

project = "skpou"
author = "skpou developers"
copyright = "2026, skpou developers"
version = release = skpou.__version__

extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/GALLERY_HEADER.rst"]
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False  # the template of classes lists them
copybutton_prompt_text = ">>> |... "
copybutton_prompt_is_regexp = True

html_static_path = ["_static"]
html_css_files = ["results.css"]
html_theme = "pydata_sphinx_theme"
html_title = "skpou"
# The left bar lists the pages of a section; these are pages without further ones.
html_sidebars = {page: [] for page in ("index", "installation", "api", "changelog", "carry_on")}
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
}

# Names of other projects link to their documentation where it can be reached.
intersphinx_mapping = {
    name: (address, None)
    for name, address in {
        "python": "https://docs.python.org/3",
        "numpy": "https://numpy.org/doc/stable",
        "scipy": "https://docs.scipy.org/doc/scipy",
        "sklearn": "https://scikit-learn.org/stable",
        "torch": "https://pytorch.org/docs/stable",
        "matplotlib": "https://matplotlib.org/stable",
        "pandas": "https://pandas.pydata.org/docs",
    }.items()
}
intersphinx_timeout = 5  # seconds; some machines without a network let one wait

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "backreferences_dir": "generated",
    "doc_module": ("skpou",),
    "reference_url": {"skpou": None},
    # `spice` needs a circuit simulator: it is shown with a figure of an earlier run.
    "filename_pattern": r"/(?!spice\.py)\w+\.py$",
    "within_subsection_order": "gallery.order",
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "matplotlib_animations": False,
    "abort_on_example_error": False,
    "only_warn_on_example_error": False,
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("gallery.plain_figures",),
}


def defining_module(app, modname, attribute):
    """Module with the source of a name: classes call themselves after the package."""
    try:
        found = importlib.import_module(modname)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    if inspect.isclass(found):
        methods = [m for m in vars(found).values() if inspect.isfunction(m)]
        names = [m.__module__ for m in map(inspect.unwrap, methods)]
        own = [name for name in names if name and name.startswith("skpou")]
        return own[0] if own else found.__module__
    return getattr(inspect.unwrap(found), "__module__", None)


def is_a_fault(record):
    """Whether a warning counts: without a network other projects are named without a link."""
    return "failed to reach any of the inventories" not in str(record.msg)


def only_tables_that_are_there(app, docname, source):
    """Leave out tables of results that have not been kept."""

    def kept(match):
        return match[0] if (HERE / Path(docname).parent / match[1]).exists() else ""

    source[0] = re.sub(
        r"^\.\. csv-table::[^\n]*\n   :file: (\S+)\n(?:   :[^\n]*\n?)*", kept, source[0], flags=re.M
    )


def setup(app):
    for handler in logging.getLogger("sphinx").handlers:
        handler.filters.insert(0, is_a_fault)  # before the one that counts warnings
    app.connect("viewcode-follow-imported", defining_module)
    app.connect("source-read", only_tables_that_are_there)
