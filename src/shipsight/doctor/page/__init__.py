# SPDX-License-Identifier: Apache-2.0
"""`doctor.html`: a diagnosis as one self-contained page for people. Reads nothing; the same diagnosis gives the same bytes. Unstable."""

from shipsight.doctor.page.rendering import render_page

__all__ = ["render_page"]
