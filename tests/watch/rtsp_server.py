# SPDX-License-Identifier: Apache-2.0
"""A camera for the tests: a clip, encoded by ffmpeg without end, given to RTSP clients by GStreamer's server.

    python3 rtsp_server.py PORT CLIP [USER PASSWORD]

Run by the system's Python, which has GStreamer's bindings. Each client starts an ffmpeg of its own at the clip's
beginning. Prints `ready` when it listens on rtsp://127.0.0.1:PORT/camera.
"""

import subprocess
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


class Camera(GstRtspServer.RTSPMediaFactory):
    """Makes the pipeline of a client: ffmpeg's Matroska from a pipe, its H.264 into RTP."""

    def __init__(self, clip: str) -> None:
        super().__init__()
        self._clip = clip
        self.set_shared(False)

    def do_create_element(self, url: object) -> object:
        command = ["ffmpeg", "-loglevel", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", self._clip]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10"]
        command += ["-f", "matroska", "-live", "1", "pipe:1"]
        encoder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert encoder.stdout is not None
        self._encoders = [*getattr(self, "_encoders", []), encoder]
        return Gst.parse_launch(
            f"( fdsrc fd={encoder.stdout.fileno()} ! matroskademux ! queue ! rtph264pay name=pay0 pt=96 config-interval=1 )"
        )


def main(arguments: list[str]) -> None:
    """Serves until killed."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(arguments[0])
    camera = Camera(arguments[1])
    if len(arguments) > 2:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(arguments[2], arguments[3]), token)
        server.set_auth(auth)
        camera.add_role_from_structure(
            Gst.Structure.new_from_string("viewer, media.factory.access=true, media.factory.construct=true")
        )
    server.get_mount_points().add_factory("/camera", camera)
    server.attach(None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(sys.argv[1:])
