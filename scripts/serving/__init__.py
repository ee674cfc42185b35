"""Real servers on loopback, started, ended and hurt by name; what `scripts/services` runs."""
