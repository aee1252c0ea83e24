"""Knows that this process, or its machine, is about to be taken away: SIGTERM, and the notices of AWS, Google Cloud and Azure.

A signal or a notice does nothing but be remembered; whoever trains asks at the next step boundary. Before anybody has asked there
is nothing to save, so that SIGTERM then ends the process at once, with the same exit status. Knows no run folder and no torch.

Threads ask the metadata service of the machine's cloud (169.254.169.254, which never leaves the machine), and no other address.
"""

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.runfolder import INTERRUPTED

METADATA = "http://169.254.169.254"
POLL_SECONDS = 5.0
"""AWS gives two minutes, Azure and Google Cloud at least half a minute."""
ANSWER_SECONDS = 3.0
LONG_POLL_SECONDS = 60
OUR_CLOUD = "TUNESMITH_NOTICES"
"""Names the clouds to ask: `aws`, or `gcp=http://10.0.0.1`, parted by commas; `none` for none. Unset: what the machine says."""


class Notice(NamedTuple):
    reason: str
    is_final: bool
    """False for a mere warning: state is saved, and the run goes on."""


Look = Callable[[str], Notice | None]
"""Asks the metadata service at an address once. Raises OSError, ValueError or HTTPException for no answer, or a strange one."""


def aws(address: str) -> Notice | None:
    """EC2's spot notice and rebalance recommendation, by IMDSv2."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    token = {"X-aws-ec2-metadata-token": _ask(f"{address}/latest/api/token", lifetime, method="PUT") or ""}
    action = _ask(f"{address}/latest/meta-data/spot/instance-action", token)
    if action is not None:
        told = json.loads(action)
        return Notice(f"AWS will {told['action']} this machine at {told['time']}", True)
    if _ask(f"{address}/latest/meta-data/events/recommendations/rebalance", token) is not None:
        return Notice("AWS may soon take this machine (rebalance recommendation)", False)
    return None


def gcp(address: str) -> Notice | None:
    """Google Cloud's preemption: asked once, then by a request that is answered when it changes."""
    url, flavor = f"{address}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}
    wait = f"?wait_for_change=true&timeout_sec={LONG_POLL_SECONDS}"
    if _ask(url, flavor) == "TRUE" or _ask(url + wait, flavor, seconds=LONG_POLL_SECONDS + 10) == "TRUE":
        return Notice("Google Cloud preempts this machine", True)
    return None


def azure(address: str) -> Notice | None:
    """Azure's scheduled events that end this machine; those of its neighbours are in the list too."""
    header = {"Metadata": "true"}
    name = _ask(f"{address}/metadata/instance/compute/name?api-version=2021-02-01&format=text", header)
    told = _ask(f"{address}/metadata/scheduledevents?api-version=2020-07-01", header)
    for event in json.loads(told or "{}").get("Events", []):
        if event["EventType"] in {"Preempt", "Terminate", "Reboot", "Redeploy"} and name in event["Resources"]:
            return Notice(f"Azure: {event['EventType']} of this machine, not before {event.get('NotBefore') or 'now'}", True)
    return None


CLOUDS: dict[str, Look] = {"aws": aws, "gcp": gcp, "azure": azure}


def _ask(url: str, headers: dict[str, str], *, method: str = "GET", seconds: float = ANSWER_SECONDS) -> str | None:
    """The answer's text, None for 404. No proxy is used: the address is this machine's."""
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=seconds) as answer:
            return str(answer.read(100_000).decode()).strip()
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                return None
        raise


def clouds_here(environment: Mapping[str, str], dmi: Path = Path("/sys/class/dmi/id")) -> dict[str, str]:
    """Cloud -> address of its metadata service: as the environment names them, else as the machine's firmware does."""
    named = environment.get(OUR_CLOUD)
    if named is not None:
        parts = [part.partition("=") for part in named.split(",")]
        return {cloud.strip(): address.rstrip("/") or METADATA for cloud, _, address in parts if cloud.strip() in CLOUDS}
    said = {name: _first_line(dmi / name) for name in ("sys_vendor", "chassis_asset_tag")}
    azures = "7783-7084-3265-9085-8269-3286-77"
    facts = {"aws": said["sys_vendor"] == "Amazon EC2", "gcp": said["sys_vendor"] == "Google",
             "azure": said["chassis_asset_tag"] == azures}  # fmt: skip
    return {cloud: METADATA for cloud, is_here in facts.items() if is_here}


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class Interruption:
    """What was noticed. `watching` listens; `take` is asked at step boundaries."""

    def __init__(self, clouds: Mapping[str, str], poll_seconds: float = POLL_SECONDS):
        self._clouds = clouds
        self._poll_seconds = poll_seconds
        self._noticed: Notice | None = None
        self._told: Notice | None = None
        self._is_asked = False
        self._ended = threading.Event()

    @property
    def was_taken(self) -> bool:
        """Has somebody been told to leave?"""
        return self._told is not None and self._told.is_final

    def take(self, tell: Callable[[str], Any]) -> Notice | None:
        """What was noticed, if it is new or final. `tell` is told the reason, once."""
        if not self._is_asked:
            self._is_asked = True
            self._begin()
        noticed = self._noticed
        if noticed is None or (noticed == self._told and not noticed.is_final):
            return None
        if noticed != self._told:
            self._told = noticed
            tell(f"{noticed.reason}: a checkpoint is written.")
        return noticed

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Listens to SIGTERM, and from the first `take` on to the clouds, while it lasts. In the main thread only."""
        before = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            yield
        finally:
            self._ended.set()
            signal.signal(signal.SIGTERM, before)

    def _begin(self) -> None:
        """Threads begin when somebody asks first: before that nothing can be saved, and whoever has threads does not fork."""
        for cloud, address in self._clouds.items():
            threading.Thread(target=self._watch, args=(CLOUDS[cloud], address), name=f"notices-{cloud}", daemon=True).start()

    def _on_signal(self, number: int, frame: object) -> None:
        if not self._is_asked:
            os._exit(INTERRUPTED)
        self._notice(Notice("This process was told to end (SIGTERM)", True))

    def _watch(self, look: Look, address: str) -> None:
        while not self._ended.is_set():
            try:
                found = look(address)
            except (OSError, ValueError, KeyError, HTTPException):
                found = None  # a metadata service that is busy or strange: it is asked again
            if found is not None:
                self._notice(found)
                if found.is_final:
                    return
            self._ended.wait(self._poll_seconds)

    def _notice(self, notice: Notice) -> None:
        if self._noticed is None or notice.is_final:
            self._noticed = notice
