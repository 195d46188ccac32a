//! The export of spans: a real collector of OTLP, and two nodes, of which one calls the other.

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use soma_testkit::command::{DEADLINE, Home, Running};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

const PROGRAM: &str = env!("CARGO_BIN_EXE_soma-p2p");

/// Passes on all that it is sent.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The spans of a message, each of which must be of this service.
fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
    let of = |resource: opentelemetry_proto::tonic::trace::v1::ResourceSpans| {
        let attributes = resource.resource.unwrap().attributes;
        let name = attributes.into_iter().find(|attribute| attribute.key == "service.name").unwrap();
        assert_eq!(name.value.unwrap().value, Some(Value::StringValue("soma-p2p".into())));
        resource.scope_spans.into_iter().flat_map(|scope| scope.spans)
    };
    request.resource_spans.into_iter().flat_map(of).collect()
}

#[test]
fn collector_gets_the_spans_of_a_call_and_the_last_ones_when_the_node_stops() {
    let runtime = Runtime::new().unwrap();
    let (sender, mut received) = mpsc::unbounded_channel();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Server::builder()
        .add_service(TraceServiceServer::new(Collector(sender)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    runtime.spawn(collector);

    let home = Home::new(PROGRAM);
    let mut command = home.command(["node", "--config", "node.toml"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
    // Longer than the test: what comes, comes because the node stops.
    let node = Running::start(command.env("OTEL_BSP_SCHEDULE_DELAY", "600000"));
    node.until("it is ready", |output| output.stdout.starts_with("ready: "));
    let ready = node.printed();
    let words: Vec<_> = ready.split_whitespace().collect();
    let ["ready:", "peer", peer, "listens", "on", address, ..] = words[..] else { panic!("{ready:?}") };
    home.run(["ping", &format!("{peer}@{}", address.trim_end_matches(','))]).ok();
    node.stop("TERM").ok();

    let is_call = |span: &Span| span.parent_span_id.is_empty() && span.name.starts_with("Get");
    let mut all = Vec::new();
    while !all.iter().any(is_call) {
        let request = runtime.block_on(async { timeout(DEADLINE, received.recv()).await });
        all.extend(spans(request.unwrap_or_else(|_| panic!("no span of a call among {all:#?}")).unwrap()));
    }
    while let Ok(request) = received.try_recv() {
        all.extend(spans(request));
    }
    let call = all.iter().find(|span| is_call(span)).unwrap();
    let handled = all.iter().find(|span| span.parent_span_id == call.span_id && span.trace_id == call.trace_id);
    assert!(handled.is_some_and(|span| span.name == "grpc-adapter Arrived"), "{all:#?}");
}

#[test]
fn endpoint_that_is_no_address_is_an_error_that_names_its_variable() {
    let home = Home::new(PROGRAM);
    let mut command = home.command(["node", "--config", "node.toml"]);
    let node = Running::start(command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "no address"));
    node.wait().refused(&["OTEL_EXPORTER_OTLP_ENDPOINT", "no address"]);
}
