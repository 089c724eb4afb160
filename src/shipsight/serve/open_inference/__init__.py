# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol 2, free of any wire format: its names, its tensors, and what its calls do.

REST (`serve.http`) and gRPC (`serve.grpc`) read and write their own formats and share all else. Stable.
"""

from shipsight.serve.open_inference.endpoints import Endpoint, TensorShape, find_endpoint, list_endpoints
from shipsight.serve.open_inference.protocol import OpenInference

__all__ = ["Endpoint", "OpenInference", "TensorShape", "find_endpoint", "list_endpoints"]
