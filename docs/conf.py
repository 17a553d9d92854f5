"""Sphinx configuration."""

from importlib import metadata

project = "django-cocobase-realtime"
author = "The django-cocobase-realtime founders"
copyright = "2026, the founders"
version = release = metadata.version("django-cocobase-realtime")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
# headings down to this level can be linked to
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "django-cocobase-realtime"
