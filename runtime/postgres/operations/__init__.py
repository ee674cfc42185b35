"""What people ask of the store: lists, and changes, each in a transaction of its tenant."""
