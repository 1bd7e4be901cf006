"""postconf -t and -b: the templates of notifications, and their texts with the values of the parameters (bounce(5)).

postconf [-c DIR] -t [FILE]    the four templates, in a form that bounce_template_file takes
postconf [-c DIR] -b [FILE]    their texts, as a notification has them

Without FILE, those of `bounce_template_file`; with an empty name, the built-in ones.
"""

from __future__ import annotations

from postillion.config import Config
from postillion.delivery.bounce import template_file
from postillion.delivery.bounce.template import BUILT_IN, NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = "bounce"


def show(directory: str, words: list[str], warn: Callable[[str], None], *, expanded: bool) -> None:
    """Print the templates. `words`: the name of a file, or none. `expanded`: only their texts, with their parameters.

    `warn` gets a text for each template that bounce would ignore. Raises `ConfigError`, also for a text that bounce
    would replace by the built-in one.
    """
    config = Config.load(directory)
    config.set_runtime(process_name=PROGRAM)
    if not words:
        templates = template_file.of_site(config, warn)
    else:
        templates = template_file.load(words[0], warn) if words[0] else BUILT_IN
    found = [templates[name] for name in NAMES]
    if expanded:
        print("\n".join(template.expanded(config, warn).printed_text() for template in found), end="")
    else:
        print("\n".join(template.printed() for template in found), end="")
