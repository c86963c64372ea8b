"""Screenshot of a report, of a demo with few steps.

python docs/drawings/report.py    # draws docs/figures/report.png anew; needs chromium
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FIGURE = Path(__file__).parents[1] / "figures" / "report.png"
COMMAND = "demo --policy random --policy uds --steps 12 --records 300 --pretraining-steps 40 --seeds 2 --output demo"
BROWSER = "--headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=4000 --window-size=1100,1500"


def main() -> None:
    """Train, and take the screenshot."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([Path(sys.executable).with_name("uds"), *COMMAND.split()], check=True, cwd=folder)
        report = (Path(folder) / "demo" / "report.html").as_uri()
        subprocess.run([browser, *BROWSER.split(), f"--screenshot={FIGURE}", report], check=True, cwd=folder)


if __name__ == "__main__":
    main()
