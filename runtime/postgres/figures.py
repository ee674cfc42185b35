"""What the books refused this node, and what it found lost in them: counted for metrics."""


class StoreFigures:
    """Counters of one node, since it was started."""

    __slots__ = ("fenced", "lost", "stale")

    def __init__(self) -> None:
        self.fenced = 0
        """Statements of a leader whose epoch was over."""
        self.stale = 0
        """Ends of attempts whose fencing token was not in force any more."""
        self.lost = 0
        """Executions of nodes that had ended, as this node declared them lost."""

    def lose(self, count: int) -> None:
        """So many more are lost."""
        self.lost += count
