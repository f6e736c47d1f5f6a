"""Spans arrive at a receiver of OTLP over gRPC, as the setting ``service.otel`` has them sent."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc

from orchestrator.events import RunState
from orchestrator.service.spans import Spans
from tests.unit.service_parts import run


class Receiver(rpc.TraceServiceServicer):
    """A collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.resources: list[Any] = []
        self.metadata: dict[str, str] = {}

    async def Export(self, request: Any, context: Any) -> Any:
        """Keeps it."""
        self.metadata |= dict(context.invocation_metadata())
        self.resources += request.resource_spans
        return otlp.ExportTraceServiceResponse()


def test_what_has_ended_arrives_with_what_the_receiver_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    receiver = Receiver()

    async def test() -> None:
        server = grpc.aio.server()
        rpc.add_TraceServiceServicer_to_server(receiver, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            spans = Spans.to(f"http://127.0.0.1:{port}")
            spans.run("r1", "default").end(RunState.SUCCEEDED)
            await spans.close()
        finally:
            await server.stop(None)

    run(test())
    (resource,) = receiver.resources
    about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert about["service.name"] == "cellblock"
    (span,) = [span for scope in resource.scope_spans for span in scope.spans]
    told = {pair.key: pair.value.string_value for pair in span.attributes}
    assert (span.name, told["cellblock.run.id"], told["cellblock.run.state"]) == (
        "invoke_agent",
        "r1",
        "succeeded",
    )
    assert receiver.metadata["api-key"] == "secret"
