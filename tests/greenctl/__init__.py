"""Tests of greenctl, run as a program against a server on a real socket."""
