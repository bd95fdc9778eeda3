"""A camera and a viewer of ROS 2, for the node of examples/ros2: publishes pictures on /image, one by one,
and writes those that come back on /restored.

    python tests/examples/ros_camera.py SOURCES.npz FOUND.npz

SOURCES.npz has a picture (H W 3 or H W, uint8) for each encoding. Ends once each has come back.
"""

from __future__ import annotations

import array
import sys
import time

import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

LIMIT = 80.0


def message(encoding: str, picture: np.ndarray, second: int) -> Image:
    """With four bytes of padding behind each row."""
    rows = picture.reshape(picture.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, 4)))
    made = Image(height=picture.shape[0], width=picture.shape[1], encoding=encoding, step=padded.shape[1])
    made.header.frame_id, made.header.stamp.sec = "camera", second
    made.data = array.array("B", padded.tobytes())
    return made


def main(sources: str, found: str) -> None:
    pictures = dict(np.load(sources))
    encodings, answers = list(pictures), dict[str, np.ndarray]()
    rclpy.init()
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)

    def take(image: Image) -> None:
        assert image.header.frame_id == "camera" and encodings[image.header.stamp.sec] == image.encoding
        shape = pictures[image.encoding].shape
        answers[image.encoding] = np.frombuffer(image.data, np.uint8).reshape(shape)

    node.create_subscription(Image, "restored", take, 10)
    until, number = time.monotonic() + LIMIT, 0
    while len(answers) < len(pictures):
        assert time.monotonic() < until, f"{list(answers)} came back"
        encoding = encodings[number % len(encodings)]
        if encoding not in answers:
            publisher.publish(message(encoding, pictures[encoding], number % len(encodings)))
            rclpy.spin_once(node, timeout_sec=0.5)
        number += 1
    np.savez(found, allow_pickle=False, **answers)
    rclpy.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:3])
