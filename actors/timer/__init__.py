"""The Timer: which instants are due, and the wheel that waits for them."""
