# SPDX-License-Identifier: Apache-2.0
"""`python -m shipsight` is `shipsight`."""

from shipsight.cli import main

if __name__ == "__main__":
    main()
