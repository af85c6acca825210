"""greend as a service of systemd: installs it, removes it, tells how it is."""
