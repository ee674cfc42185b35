"""The HTTP API: what a node answers on loopback, as JSON, and how it refuses the rest."""
