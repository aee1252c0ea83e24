"""What says that a machine is taken away is heard, from each cloud as it says it; what says nothing of the kind is not."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tunesmith.train.interruption import METADATA, Interruption, aws, azure, clouds_here, gcp

SPOT = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
PREEMPTED = "/computeMetadata/v1/instance/preempted"


def test_aws_says_nothing_until_it_does(cloud):
    assert aws(cloud.address) is None
    cloud.say(REBALANCE, '{"noticeTime": "2026-09-19T08:22:00Z"}')
    assert not aws(cloud.address).is_final
    cloud.say(SPOT, '{"action": "terminate", "time": "2026-09-19T08:22:00Z"}')
    assert aws(cloud.address).is_final
    assert "terminate" in aws(cloud.address).reason


def test_google_cloud_is_heard_the_moment_it_changes(cloud):
    cloud.say(PREEMPTED, "FALSE")
    interruption = Interruption({"gcp": cloud.address})
    with interruption.watching():
        assert interruption.take(print) is None
        while not any("wait_for_change" in path for path in cloud.asked):
            time.sleep(0.005)
        cloud.say(PREEMPTED, "TRUE")
        while not (notice := interruption.take(lambda message: None)):
            time.sleep(0.005)
    assert notice.is_final
    assert gcp(cloud.address).is_final


def test_of_azures_events_only_those_count_that_end_this_machine(cloud):
    assert azure(cloud.address) is None
    cloud.azure_takes("another-machine")
    assert azure(cloud.address) is None
    cloud.azure_takes("this-machine", event="Freeze")
    assert azure(cloud.address) is None
    cloud.azure_takes("another-machine", "this-machine")
    assert azure(cloud.address).is_final


def test_a_warning_is_taken_once_and_a_notice_after_it_until_the_end(cloud):
    cloud.say(REBALANCE, "{}")
    interruption, told = Interruption({"aws": cloud.address}, 0.01), []
    with interruption.watching():
        while (notice := interruption.take(told.append)) is None:
            time.sleep(0.005)
        assert not notice.is_final
        assert interruption.take(told.append) is None
        assert not interruption.was_taken
        cloud.say(SPOT, '{"action": "stop", "time": "now"}')
        while (notice := interruption.take(told.append)) is None:
            time.sleep(0.005)
        assert notice.is_final
        assert interruption.take(told.append) == notice
    assert interruption.was_taken
    assert len(told) == 2


def test_a_service_that_answers_nonsense_or_not_at_all_ends_nothing(cloud):
    cloud.say(SPOT, "<html>busy</html>")
    cloud.say("/metadata/scheduledevents", '{"Events": [{"EventType": "Preempt"}]}')
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    interruption = Interruption({"aws": cloud.address, "azure": cloud.address, "gcp": nobody}, 0.01)
    with interruption.watching():
        assert interruption.take(print) is None
        while sum(path.startswith(("/latest/meta", "/metadata/sch")) for path in cloud.asked) < 6:
            time.sleep(0.005)
        assert interruption.take(print) is None
        cloud.say(SPOT, '{"action": "terminate", "time": "now"}')
        while interruption.take(lambda message: None) is None:
            time.sleep(0.005)


def test_sigterm_is_a_notice_once_somebody_asks():
    interruption, told = Interruption({}), []
    with interruption.watching():
        assert interruption.take(told.append) is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.take(told.append).is_final
    assert "SIGTERM" in told[0]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


BEFORE = """
import os, signal, time
from tunesmith.train.interruption import Interruption
with Interruption({}).watching():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""


def test_before_anybody_asks_there_is_nothing_to_save_and_sigterm_ends_it_with_33():
    assert subprocess.run([sys.executable, "-c", BEFORE]).returncode == 33


@pytest.mark.parametrize(
    ("files", "clouds"),
    [
        ({"sys_vendor": "Amazon EC2\n"}, {"aws": METADATA}),
        ({"sys_vendor": "Google\n"}, {"gcp": METADATA}),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77\n"}, {"azure": METADATA}),
        ({"sys_vendor": "Microsoft Corporation"}, {}),
        ({"sys_vendor": "LENOVO"}, {}),
        ({}, {}),
    ],
)
def test_the_machine_says_whose_it_is_and_elsewhere_nobody_is_asked(tmp_path, files, clouds):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert clouds_here({}, tmp_path) == clouds


def test_the_environment_names_others_or_none(tmp_path):
    (tmp_path / "sys_vendor").write_text("Amazon EC2")
    assert clouds_here({"TUNESMITH_NOTICES": "none"}, tmp_path) == {}
    assert clouds_here({"TUNESMITH_NOTICES": "gcp, azure=http://10.0.0.1/"}, tmp_path) == {
        "gcp": METADATA, "azure": "http://10.0.0.1",
    }  # fmt: skip
