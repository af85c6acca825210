"""Simulated GPUs: their physics and what their sensors show of it. Pure."""
