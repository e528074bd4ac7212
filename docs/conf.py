"""The site: `pip install -e ".[docs]"`, then `sphinx-build -W docs site`. Nothing in it is fetched from elsewhere.

The pages are plain Markdown, so that they can be read on GitHub as they are. What Sphinx needs beside them is here and
in `_sphinx`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = html_title = "circuit-breaker-stdlib"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "_sphinx.api",
    "_sphinx.glossary",
    "_sphinx.pages",
]

# The navigation: each group, and for each page its short title.
navigation = {
    "Start": {
        "Tutorial": "tutorial",
    },
    "Guides": {
        "Choose thresholds": "how-to/thresholds",
        "Read logs of other programs": "how-to/reading-logs",
        "Combine the three": "how-to/combine",
        "Mistakes to avoid": "how-to/mistakes",
        "Configure retries": "how-to/retries",
        "Limit retries under overload": "how-to/load",
        "One breaker per host": "how-to/many-hosts",
        "Work with asyncio and trio": "how-to/asynchronous",
        "Guard streams": "how-to/streams",
        "Test your code": "how-to/testing",
        "See what happens": "how-to/observing",
        "Run in workers": "how-to/workers",
        "Share a circuit between processes": "how-to/shared-circuits",
        "See and steer shared circuits": "how-to/console",
        "Migrate": "how-to/migrating",
    },
    "Recipes": {
        "HTTP clients": "how-to/recipes-http",
        "Language models": "how-to/recipes-openai",
        "FastAPI": "how-to/recipes-fastapi",
        "SQLAlchemy": "how-to/recipes-sqlalchemy",
        "Celery": "how-to/recipes-celery",
        "Metrics, traces, structlog": "how-to/recipes-telemetry",
    },
    "Reference": {
        "API": "reference/api",
        "Settings": "reference/settings",
        "Errors": "reference/errors",
        "Glossary": "reference/glossary",
    },
    "Explanation": {
        "Why": "explanation/why",
        "The state machine": "explanation/state-machine",
        "Locks, forks and interrupts": "explanation/locking",
        "Differences from the original": "explanation/differences",
        "Comparison": "explanation/comparison",
        "Correctness": "correctness",
        "Benchmarks": "benchmarks",
    },
    "Development": {
        "Overview": "development/index",
        "The contract": "development/contract",
        "The design": "development/design",
        "Without the GIL": "development/free-threading",
    },
}

# Pages
myst_heading_anchors = 4  # the anchors that GitHub makes
myst_enable_extensions = ["alert"]  # > [!NOTE], as on GitHub
myst_url_schemes = ["http", "https", "mailto", "repository"]  # the last is that of `_sphinx.pages`

# API: from the docstrings, in the order of the source
add_module_names = False
autodoc_member_order = "bysource"
autodoc_type_aliases = {"ExceptionFilter": "ExceptionFilter"}  # api.md says what this is
autodoc_typehints_format = "short"
default_role = "py:obj"  # `CircuitBreaker` in a docstring is a link, and plain code if there is nothing to link to
maximum_signature_line_length = 72
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

# How it looks
html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["_sphinx/static"]
html_css_files = ["site.css"]
html_js_files = [("tables.js", {"defer": "defer"})]
html_copy_source = False
html_show_copyright = False
html_use_index = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#00695c", "color-brand-content": "#00695c"},
    "dark_css_variables": {"color-brand-primary": "#4db6ac", "color-brand-content": "#4db6ac"},
    "top_of_page_buttons": [],
}
