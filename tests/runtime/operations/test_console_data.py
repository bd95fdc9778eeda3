"""Pictures, figures, events and health as clients get them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from measnet.runtime.live.events import KEPT, Event, Events
from measnet.runtime.live.telemetry import Telemetry
from measnet.runtime.operations.board import KEPT_OVER
from runtime.operations.kit import DAMAGE, Camera, Client, Connect, Serve, wait_for


def test_input_and_result_come_together_and_are_of_one_frame(
    serve: Serve, client: Connect, events: Events
) -> None:
    camera = Camera("door", events)
    asking = client(serve(camera))
    with camera.running():
        last = 0
        for _ in range(10):
            pair = asking.next_pair("door", last)
            assert pair[0] > last
            last = pair[0]
            assert abs(float(pair[1].mean()) + float(pair[2].mean()) - 255) < 3
            assert pair[1].shape == pair[2].shape == (48, 64, 3)


def test_a_large_frame_is_shown_small_and_one_of_sixteen_bits_in_eight(
    serve: Serve, client: Connect, events: Events
) -> None:
    camera = Camera("door", events)
    asking = client(serve(camera))
    camera.frame(np.full((1080, 1920, 3), 200 * 257, np.uint16))
    _, source, result = asking.next_pair("door")
    assert source.shape == (720, 1280, 3)
    assert abs(float(source.mean()) - 200) < 2 and result.dtype == np.uint8


def test_nothing_is_encoded_while_nobody_looks_and_one_picture_serves_fifty(
    serve: Serve, client: Connect, events: Events
) -> None:
    camera = Camera("door", events)
    operations = serve(camera)
    feed = operations.board.feed("door")
    assert feed is not None
    for _ in range(20):
        camera.frame()
    assert feed.encodings == 0
    viewers = [client(operations) for _ in range(50)]

    def look(viewer: Client) -> int:
        assert [one["camera"] for one in viewer.json("/api/live")["cameras"]] == ["door"]
        return viewer.next_pair("door", camera.frames - 1)[0]

    with ThreadPoolExecutor(len(viewers)) as threads:
        for shown in range(1, 6):
            camera.frame()
            assert set(threads.map(look, viewers)) == {camera.frames}
            assert feed.encodings == shown


def test_a_camera_without_new_frames_is_answered_soon_and_without_a_picture(
    serve: Serve, client: Connect, events: Events
) -> None:
    camera = Camera("door", events)
    asking = client(serve(camera))
    assert asking.pair("door") is None
    camera.frame()
    pair = asking.next_pair("door")
    assert asking.pair("door", pair[0]) is None
    assert asking.get("/api/pair?camera=nowhere")[0] == 404


def test_figures_and_history_are_plain_json_whatever_they_are(
    serve: Serve, client: Connect, events: Events
) -> None:
    camera = Camera('"><b>\\ü\n', events)
    asking = client(serve(camera))
    camera.enter("running")
    camera.frame()
    camera.telemetry.verified(float("inf"))
    for _ in range(3):
        camera.telemetry.dropped("newer")
    live = wait_for(lambda: (found := asking.json("/api/live"))["history"] and found)
    [figures] = live["cameras"]
    assert figures["camera"] == camera.name and figures["parity_db"] == "identical"
    assert figures["dropped"] == {"newer": 3} and figures["latency"]["p50"] == 0.04
    assert figures["width"] == 64 and figures["damage"] == DAMAGE
    moment = wait_for(lambda: asking.json(f"/api/live?after={live['tick']}")["history"])[-1]["cameras"]
    assert moment[camera.name]["state"] == "running" and moment[camera.name]["experts"] == [0.75, 0.25]
    camera.telemetry.verified(float("nan"))
    assert asking.json("/api/cameras")[0]["parity_db"] is None


def test_events_are_numbered_and_can_be_asked_for_by_camera(
    serve: Serve, client: Connect, events: Events
) -> None:
    events.say(Event("door", "note", "before the server was there"))
    asking = client(serve())
    events.say(Event("yard", "ladder", "every second frame", values={"fps": float("inf")}))
    told = asking.json("/api/events")
    assert [(event["number"], event["camera"]) for event in told] == [(1, "door"), (2, "yard")]
    assert told[1]["values"] == {"fps": None} and told[0]["words"] == "before the server was there"
    assert [event["number"] for event in asking.json("/api/events?after=1")] == [2]
    assert [event["number"] for event in asking.json("/api/events?camera=door")] == [1]


def test_late_frames_do_not_push_out_how_a_camera_came_and_went(
    serve: Serve, client: Connect, events: Events
) -> None:
    asking = client(serve())
    events.say(Event("door", "state", "gave up", "failed"))
    for _ in range(KEPT + 5):
        events.say(Event("door", "late", "1 newer"))
    told = asking.json("/api/events")
    assert (told[0]["words"], told[-1]["number"], len(told)) == ("gave up", KEPT + 6, KEPT + 1)
    assert [event["number"] for event in told[1:]] == list(range(7, KEPT + 7))


def test_a_camera_can_come_and_go_while_it_is_served(serve: Serve, client: Connect, events: Events) -> None:
    operations = serve()
    asking = client(operations)
    assert asking.json("/api/cameras") == []
    leave = operations.board.watch(Telemetry("door"))
    assert [one["camera"] for one in asking.json("/api/cameras")] == ["door"]
    assert asking.get("/api/pair?camera=door")[0] == 404
    leave()
    assert asking.json("/api/cameras") == []


def test_of_many_inputs_one_after_another_the_last_ones_are_shown(
    serve: Serve, client: Connect, events: Events
) -> None:
    operations = serve()
    asking = client(operations)
    for number in range(KEPT_OVER + 5):
        camera = Telemetry(str(number))
        operations.board.watch(camera)
        camera.enter("ended")
    operations.board.watch(Telemetry("12"))  # once more: it takes the place of the one before
    shown = [(one["camera"], one["state"]) for one in asking.json("/api/cameras")]
    assert shown == [*((str(number), "ended") for number in range(4, 12)), ("12", "connecting")]


def test_it_is_ready_when_every_camera_runs_that_is_not_over(
    serve: Serve, client: Connect, events: Events
) -> None:
    door, yard = Camera("door", events), Camera("yard", events)
    operations = serve(door, yard)
    asking = client(operations)

    def answers() -> tuple[int, int, int]:
        return tuple(asking.get(path)[0] for path in ("/healthz", "/readyz", "/readyz?any"))  # type: ignore[return-value]

    assert answers() == (200, 503, 503)
    door.enter("running")
    assert answers() == (200, 503, 200)
    yard.enter("running")
    assert answers() == (200, 200, 200)
    yard.enter("stalled")
    assert answers() == (200, 503, 200)
    yard.enter("failed")
    assert answers() == (200, 200, 200)
    door.enter("ended")
    assert answers() == (200, 503, 503)
