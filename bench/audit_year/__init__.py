# SPDX-License-Identifier: Apache-2.0
"""A made-up year of three organisations, as the audit log of their servers would tell it, with planted incidents.

Knows nothing of the review's rules: it imports what an entry is, and no more. What happens is drawn from the rates in `organisation`.
"""
