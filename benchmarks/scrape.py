"""`scripts/bench scrape`: the time of a scrape with 8 devices at the bound on series."""

from tests.export.scrape_time import main

__all__ = ["main"]
