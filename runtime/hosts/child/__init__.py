"""What runs inside a job host's process; it imports little, and nothing of the node."""
