"""Time zones come from the `tzdata` wheel that is pinned, not from whatever the system has."""

import zoneinfo


def use_pinned_zones() -> None:
    """Make `zoneinfo` read the wheel; done where a program of ours starts."""
    if zoneinfo.TZPATH:
        zoneinfo.reset_tzpath(())
        zoneinfo.ZoneInfo.clear_cache()
