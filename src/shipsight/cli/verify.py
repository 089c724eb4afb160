# SPDX-License-Identifier: Apache-2.0
"""stub"""
def verify_command() -> None: pass
