"""Windows and samples on one side, joules on the other."""
