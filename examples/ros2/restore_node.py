"""A ROS 2 node that restores the pictures of a topic, always the newest, and publishes them on another one.

    python examples/ros2/restore_node.py --ros-args -r image:=/camera/image_raw

Takes ``image`` (sensor_msgs/Image of rgb8, bgr8 or mono8) and gives ``restored``, of the same header and
encoding. Other topics are named as for any node, by ``-r``; the parameter ``model`` takes another model.
"""

from __future__ import annotations

import array

import cv2
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from measnet import Restorer

# While one is restored, a newer one takes the place of the one that waits. A camera does not send again.
NEWEST = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class RestoreNode(Node):
    """Restores each picture that comes, in the thread that spins it."""

    def __init__(self) -> None:
        super().__init__("measnet")
        self.restorer = Restorer(self.declare_parameter("model", "nano").value)
        self._publisher = self.create_publisher(Image, "restored", 1)
        self.create_subscription(Image, "image", self._restore, NEWEST)

    def _restore(self, image: Image) -> None:
        picture = picture_in(image)
        if picture is None:
            self.get_logger().error(f"pictures of {image.encoding} are not taken", once=True)
        else:
            self._publisher.publish(like(image, self.restorer(picture)))


def picture_in(image: Image) -> np.ndarray | None:
    """H W 3, RGB; None of another encoding. Rows may be padded."""
    rows = np.frombuffer(image.data, np.uint8).reshape(image.height, image.step)
    if image.encoding == "mono8":
        return cv2.cvtColor(rows[:, : image.width], cv2.COLOR_GRAY2RGB)
    if image.encoding not in ("rgb8", "bgr8"):
        return None
    picture = rows[:, : image.width * 3].reshape(image.height, image.width, 3)
    return picture if image.encoding == "rgb8" else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def like(image: Image, picture: np.ndarray) -> Image:
    """A message with ``picture``, of the same header and encoding as ``image``."""
    if image.encoding == "bgr8":
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    elif image.encoding == "mono8":
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    made = Image(header=image.header, height=image.height, width=image.width, encoding=image.encoding)
    made.step = picture[0].nbytes
    made.data = array.array("B", picture.tobytes())
    return made


def main() -> None:
    rclpy.init()
    node = RestoreNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    finally:
        node.restorer.close()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
