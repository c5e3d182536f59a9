"""The image's health check: exits with 0 where `/readyz` answers 200, else with 1."""

import http.client
import os
import sys


def main() -> int:
    """Ask the service of this container, whatever its port."""
    port = int(os.environ["BREEDCAM_PORT"])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/readyz")
        return int(connection.getresponse().status != 200)
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
