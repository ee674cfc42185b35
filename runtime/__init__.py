"""Runs actors, and everything that touches the outside world: adapters, API, CLI, wiring."""
