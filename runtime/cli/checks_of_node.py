"""The doctor's look at a running node: whether it does its work, by its own account."""

from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from runtime.cli.checks import Check, check_clock
from runtime.settings import Settings

_WITHIN_S: Final = 10.0
_NOT_READY: Final = 503


async def check_node(settings: Settings, url: str) -> list[Check]:
    """Health, troubles, the clock and the house of the node at `url`; none there is a warning."""
    try:
        async with httpx.AsyncClient(base_url=url, timeout=_WITHIN_S, trust_env=False) as http:
            health = await http.get("/health/ready")
            view: dict[str, Any] = {"reasons": [], "troubles": []} | health.json()
            answers = [await http.get(f"/api/v1/{path}") for path in ("nodes", "stats")]
            if any(answer.status_code == _NOT_READY for answer in answers):
                return [_ready(url, view, ready=False)]
            nodes, stats = answers[0].json()["items"], answers[1].json()
            house = _house(stats)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = f"none answers at {url} ({str(error) or type(error).__name__})"
        return [Check(name="node", state="warning", said=said, mend="`runtime start`")]
    except (ValueError, KeyError, TypeError):
        said = f"what answers at {url} is no Tickwright node"
        mend = "stop it, or choose another with --port and RUNTIME_URL"
        return [Check(name="node", state="wrong", said=said, mend=mend)]
    checks = [_ready(url, view, ready=health.status_code != _NOT_READY)]
    checks += [_trouble(one) for one in view["troubles"]]
    own = next((node for node in nodes if _same(node["url"], url)), None)
    if own is not None and settings.database_url is None:
        checks.append(check_clock(own["clock_offset_s"]))
    checks.append(house)
    return checks


def _same(one: str, other: str) -> bool:
    """Whether two URLs lead to one node: all its names are loopback's, and its port is its own."""
    return urlsplit(one).port == urlsplit(other).port


def _ready(url: str, view: dict[str, Any], *, ready: bool) -> Check:
    if ready:
        return Check(name="node", state="ok", said=f"{url} is ready: timers and dispatch advance")
    reasons = "; ".join(view["reasons"]) or "it says no more"
    mend = "its log says more; `runtime actors` shows what is stuck"
    return Check(name="node", state="wrong", said=f"{url} is not ready: {reasons}", mend=mend)


def _trouble(trouble: dict[str, Any]) -> Check:
    return Check(
        name=trouble["part"],
        state="warning" if trouble["level"] == "warning" else "degraded",
        said=f"{trouble['reason']} (since {trouble['since']})",
        mend="it goes by itself once the cause is gone; the node's log says more",
    )


def _house(stats: dict[str, Any]) -> Check:
    if not stats["paused"]:
        return Check(name="house", state="ok", said="not paused")
    said = f"paused: {stats['paused_reason'] or 'no reason was given'}"
    return Check(name="house", state="warning", said=said, mend="`runtime resume --all`")
