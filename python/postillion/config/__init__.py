"""Reading main.cf and master.cf: `Config.load(directory)`, and what is wrong with them: `ConfigError`."""

from postillion.config.errors import ConfigError
from postillion.config.settings import Config

__all__ = ["Config", "ConfigError"]
