"""What everyone agrees on: messages, specs, states, errors and ports; no I/O."""
