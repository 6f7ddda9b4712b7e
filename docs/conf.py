"""Sphinx makes a site of these pages: `make docs`."""

from qdjobs import __version__

project = 'qdjobs'
author = 'The qdjobs developers'
release = version = __version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.viewcode', 'sphinxcontrib.mermaid']
suppress_warnings = ['misc.highlighting_failure']  # JSON over lines of a `console` block

# The pages are read on GitHub as well: its anchors, and its fence of a diagram.
myst_heading_anchors = 4
myst_fence_as_directive = ['mermaid']

# What docstrings have in backticks is code.
default_role = 'code'
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
python_display_short_literal_types = True
maximum_signature_line_length = 80

html_theme = 'furo'
html_title = f'qdjobs {release}'
html_copy_source = False
