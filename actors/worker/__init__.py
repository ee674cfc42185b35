"""The WorkerActor and its rules: what becomes of an execution when an attempt has ended."""
