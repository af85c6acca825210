"""Tests of the client, against a server of their own on a real socket."""
