"""The client against a real daemon: its own, or the one at GREEND_TEST_ADDRESS."""
