"""The commands, one concept a module. Heavy imports are where they are used."""
