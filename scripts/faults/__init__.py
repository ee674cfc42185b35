"""Breaks a running cluster in every way that a bad day does, and holds it to its promises."""
