"""The console script `runtime`: what people type, and what they read."""
