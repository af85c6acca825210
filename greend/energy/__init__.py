"""The pure core: where energy went. No I/O, no clock, no threads; time is an argument."""
