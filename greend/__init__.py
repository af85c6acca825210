"""The energy meter of a GPU node."""

__version__ = "0.1.0"
