"""Sphinx configuration."""

from importlib.metadata import version as installed

project = "django-cocobase-realtime"
author = "The django-cocobase-realtime founders"
copyright = "2026, the founders"
version = release = installed("django-cocobase-realtime")
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "django-cocobase-realtime"
