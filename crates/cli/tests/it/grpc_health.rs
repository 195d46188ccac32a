//! gRPC on the admin endpoint, asked by clients of tonic.

use crate::{Home, node::admin};
use soma_testkit::command::DEADLINE;
use std::time::Duration;
use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest,
    health_check_response::ServingStatus::{self, Serving},
    health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

async fn channel(admin: &str) -> Channel {
    Channel::from_shared(format!("http://{admin}")).unwrap().connect().await.unwrap()
}

/// Waits until a node answers so to the probe of a service.
pub(crate) fn until(admin: &str, service: &str, wanted: ServingStatus) {
    let answers = async {
        let mut health = HealthClient::new(channel(admin).await);
        while health.check(request(service)).await.unwrap().into_inner().status() != wanted {
            // The node looks at itself every 5 s.
            sleep(Duration::from_millis(20)).await;
        }
    };
    let answered = Runtime::new().unwrap().block_on(async { timeout(DEADLINE, answers).await });
    assert!(answered.is_ok(), "{service:?} is not {wanted:?}");
}

#[test]
fn health_service_says_whether_a_node_is_ready_and_alive_and_ends_with_it() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let admin = admin(&home);
    for service in ["", "readiness", "liveness"] {
        until(&admin, service, Serving);
    }
    let runtime = Runtime::new().unwrap();
    let mut watched = runtime.block_on(async {
        let mut health = HealthClient::new(channel(&admin).await);
        let unknown = health.check(request("soma.p2p.v1.P2p")).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound, "the admin endpoint does not have the peers' service");
        health.watch(request("readiness")).await.unwrap().into_inner()
    });
    assert_eq!(runtime.block_on(watched.next()).unwrap().unwrap().status(), Serving);
    // A watching client does not keep a node from stopping. It learns of the end, or loses its connection.
    node.stop("TERM").ok();
    let last = runtime.block_on(watched.next());
    assert!(!matches!(&last, Some(Ok(status)) if status.status() == Serving), "{last:?}");
}

#[test]
fn reflection_lists_and_describes_the_services() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let admin = admin(&home);
    Runtime::new().unwrap().block_on(async {
        let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let questions = [
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol("grpc.health.v1.Health".into())),
        ];
        let mut reflection = ServerReflectionClient::new(channel(&admin).await);
        let answers = reflection.server_reflection_info(tokio_stream::iter(questions)).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(|answer| answer.unwrap().message_response.unwrap()).collect().await;
        let MessageResponse::ListServicesResponse(listed) = &answers[0] else { panic!("{answers:?}") };
        assert!(listed.service.iter().any(|service| service.name == "grpc.health.v1.Health"), "{listed:?}");
        let MessageResponse::FileDescriptorResponse(files) = &answers[1] else { panic!("{answers:?}") };
        assert_eq!(files.file_descriptor_proto.len(), 1);
    });
    node.stop("TERM").ok();
}
