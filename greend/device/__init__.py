"""Devices: what the daemon reads energy from."""
