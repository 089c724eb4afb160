# SPDX-License-Identifier: Apache-2.0
"""Faults planted in real pipelines on real models, for measuring what the doctor finds. Knows the names of rules, and nothing of how they look."""
