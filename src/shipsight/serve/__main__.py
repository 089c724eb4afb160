# SPDX-License-Identifier: Apache-2.0
"""The serving process, as its supervisor starts it: `python -m shipsight.serve CHANNEL_FD REPORT_FD`. Not for direct use."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    # Nothing of what is imported and opened is garbage: looking for some takes a tenth of the start. `process` goes back to
    # that once it is ready.
    gc.disable()
    from shipsight.serve.process import main

    sys.exit(main(sys.argv[1:]))
