"""The operator's command: what the daemon measured, and how it is."""
