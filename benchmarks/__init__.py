"""Measurements: `sh scripts/bench [PART]`."""
