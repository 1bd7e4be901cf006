"""Show a plot on a page of the site where it was drawn, and leave it out where it was not.

git holds no plots. A page names one as `<!-- plot simulation-waits.svg: caption -->`, and its text says which command
draws it into docs/plots/. MkDocs calls this hook (mkdocs.yml).
"""

import re
from pathlib import Path
from typing import Any

PLOT = re.compile(r"<!-- plot (?P<file>[\w.-]+): (?P<caption>[^\n]*?) -->")
DIRECTORY = Path(__file__).parent / "plots"


def on_page_markdown(markdown: str, /, **_event: Any) -> str:
    """Return the page with an image for each plot that exists."""
    return PLOT.sub(_image, markdown)


def _image(plot: re.Match[str]) -> str:
    if not (DIRECTORY / plot["file"]).exists():
        return ""
    return f"![{plot['caption']}](plots/{plot['file']})"
