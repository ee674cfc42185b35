"""Where attempts run: user code in processes of its own, under one guardian, never in the node."""
