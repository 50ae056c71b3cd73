"""What this plugin costs every certbot command: the time to import it, beside certbot's own start."""

from __future__ import annotations

import statistics
import subprocess
import sys

RUNS = 15
TARGET_MILLISECONDS = 5.0

_MEASURE = """\
import time
began = time.perf_counter()
import certbot.main
started = time.perf_counter()
import certbot_seafile.plugin
print((started - began) * 1000, (time.perf_counter() - started) * 1000)
"""


def main() -> int:
    """Print the medians; exit code 1 where the plugin takes longer than its target."""
    lines = [subprocess.check_output([sys.executable, "-c", _MEASURE], text=True).split() for _ in range(RUNS)]
    certbot, plugin = (statistics.median(float(line[column]) for line in lines) for column in (0, 1))
    print(f"certbot starts in {certbot:.0f} ms; the plugin adds {plugin:.2f} ms ({plugin / certbot:.1%})")
    return 0 if plugin <= TARGET_MILLISECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
