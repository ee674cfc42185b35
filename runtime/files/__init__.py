"""Files that people write: read with the place of every value, checked whole, told all at once."""
