"""The version of this package, which imports nothing and so can be read by everything."""

__version__ = "0.1.0"
