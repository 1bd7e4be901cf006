"""Every parameter, declared once: a file a family. `postillion.config.parameters` puts them together."""
