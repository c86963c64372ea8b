"""The time that `import uds_core` takes beyond NumPy's: at most 0.15 s, the best of several fresh processes."""

import subprocess
import sys

LIMIT = 0.15  # seconds
CODE = "import numpy, time; began = time.perf_counter(); import uds_core; print(time.perf_counter() - began)"

seconds = min(float(subprocess.check_output([sys.executable, "-c", CODE], text=True)) for _ in range(9))
print(f"import uds_core: {seconds:.3f} s beyond NumPy")
sys.exit(seconds > LIMIT)
