"""`greend doctor`: is everything here as greend needs it, and if not, what to do.

finding.py        what a check says
host.py           what every check is given
run.py            runs the checks, prints, exits
show.py           findings as people read them

Asking the driver can hang for ever, so that a process of its own does it:

asking.py         that process
answers.py        what it says, a line each
probe.py          starts it, waits for it, gives it up

The checks, in their order: configuration, driver, library, devices, counter,
permissions, sockets, daemon, store, clock, service. None of them changes anything.
"""

from greend.doctor.run import run_doctor

__all__ = ["run_doctor"]
