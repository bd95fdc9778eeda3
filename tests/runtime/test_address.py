"""Credentials are taken out of every address that is shown."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from measnet.runtime.live.credentials import has_secrets, hide_arguments, without_secrets


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("rtsp://bob:s3cret@cam/stream", "rtsp://***@cam/stream"),
        ("rtsp://bob:s3cret@[fe80::1]:554/stream", "rtsp://***@[fe80::1]:554/stream"),
        ("rtsps://bob@cam:322/s?channel=1&subtype=0", "rtsps://***@cam:322/s?channel=1&subtype=0"),
        ("http://cam/v.cgi?user=bob&pwd=s3cret", "http://cam/v.cgi?user=***&pwd=***"),
        ("http://cam/v.cgi?s3cret", "http://cam/v.cgi?***"),
        ("http://cam/v.m3u8?channel=2;Token=s3cret#s3cret", "http://cam/v.m3u8?channel=2;Token=***"),
        ("srt://h:9000?mode=caller&passphrase=s3cret", "srt://h:9000?mode=caller&passphrase=***"),
        ("srt://h:9000?streamid=#!::u=bob,s=s3cret", "srt://h:9000?streamid=***"),
        ("rtmp://live.example/app/s3cret", "rtmp://live.example/app/***"),
        ("rtmps://live.example/app/bob/s3cret", "rtmps://live.example/app/bob/***"),
        ("rtsp://bob:s3@cret@cam/a@b", "rtsp://***@cam/a@b"),
        ("rtsp://bob:s3/cret@cam/a", "rtsp://***@cam/a"),
        ("rtsp://bob:s3?cret@cam/a", "rtsp://***"),
        ("RTSP://bob:s3cret@CAM/a", "RTSP://***@CAM/a"),
        ("udp://239.1.2.3:1234?localaddr=10.0.0.1&pkt_size=1316", None),
        ("http://host/@live/x", None),
        ("rtsp://cam:554/stream", None),
        ("tcp://127.0.0.1:5000", None),
        ("rtmp://host/live", None),
        ("camera:0", None),
        ("/dev/video0", None),
        ("clips/a@b?c=d.mp4", None),
        ("-", None),
    ],
)
def test_addresses_are_shown_without_credentials(address: str, said: str | None) -> None:
    assert without_secrets(address) == (said or address)
    assert without_secrets(without_secrets(address)) == without_secrets(address)
    assert has_secrets(address) == (said is not None)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("rtsp://bob:s3cret@cam/a", "rtsp://***@cam/a"),
        ("--out=srt://h:1?passphrase=s3cret", "--out=srt://h:1?passphrase=***"),
        ("-ortmp://h/app/s3cret", "-ortmp://h/app/***"),
        ("-o=rtmp://h/app/s3cret", "-o=rtmp://h/app/***"),
        ("-yortmp://h/app/s3cret", "-yortmp://h/app/***"),
        ("--reconnect=5", None),
        ("-y", None),
        ("-", None),
    ],
)
def test_the_title_of_a_process_has_none_in_whatever_way_an_option_is_given(
    argument: str, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setitem(sys.modules, "setproctitle", SimpleNamespace(setproctitle=titles.append))
    monkeypatch.setattr(sys, "orig_argv", ["measnet-run", argument])
    hide_arguments()
    assert titles == ([] if said is None else [f"measnet-run {said}"])
