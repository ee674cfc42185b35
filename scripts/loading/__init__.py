"""Load tests of a whole node: what it does under work, and what it costs when it has none."""
