"""The actors that run jobs on time and, beside each, the pure rules it applies."""
