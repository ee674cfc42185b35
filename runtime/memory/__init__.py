"""The single node's coordinator and transport: the same ports, in process."""
