# SPDX-License-Identifier: Apache-2.0
"""gRPC: the server and one file a service. Imported only where a gRPC port is asked for."""

from shipsight.serve.grpc.server import GrpcServer

__all__ = ["GrpcServer"]
