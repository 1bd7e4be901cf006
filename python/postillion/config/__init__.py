"""main.cf and master.cf: `Config.load(directory)` reads them, `ConfigError` describes an error in them."""

from postillion.config.errors import ConfigError
from postillion.config.settings import Config

__all__ = ["Config", "ConfigError"]
