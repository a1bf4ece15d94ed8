//! How an instance starts and stops.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use schoolgate_backend_app::{AppError, Listen, Options, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::site::{Instance, Site, eventually};

fn tcp(app: &Instance) -> std::net::SocketAddr {
    match &app.address {
        Listen::Tcp(address) => *address,
        Listen::Unix(path) => panic!("{}", path.display()),
    }
}

async fn failure(options: Options) -> AppError {
    Server::bind(options).await.err().expect("it must not start")
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let site = Site::new();
    let app = site.instance().await;
    let error = failure(Options { listen: app.address.clone(), ..site.options() }).await;
    assert!(matches!(&error, AppError::AddressInUse { .. }), "{error}");
    assert_eq!(error.to_string(), format!("{} is in use by another process", app.address));
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_named() {
    let site = Site::new();
    let error = failure(Options { data_dir: site.keys_file(), ..site.options() }).await;
    assert!(matches!(error, AppError::DataDir { .. }), "{error}");
}

#[tokio::test]
async fn it_serves_on_a_unix_socket_and_takes_over_a_dead_one() {
    let site = Site::new();
    let path = site.data_dir().join("app.sock");
    drop(UnixListener::bind(&path).unwrap());
    let app = Instance::start(Options { listen: Listen::Unix(path.clone()), ..site.options() }).await;
    let error = failure(Options { listen: Listen::Unix(path.clone()), ..site.options() }).await;
    assert!(matches!(error, AppError::AddressInUse { .. }), "{error}");

    let mut socket = UnixStream::connect(&path).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");

    app.stop().await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_in_the_place_of_the_socket_is_not_removed() {
    let site = Site::new();
    let error = failure(Options { listen: Listen::Unix(site.keys_file()), ..site.options() }).await;
    assert!(matches!(error, AppError::AddressInUse { .. }), "{error}");
    assert!(site.keys_file().exists());
}

#[tokio::test]
async fn what_is_in_flight_is_finished() {
    let site = Site::new();
    let app = site.instance().await;
    let address = tcp(&app);
    let body = r#"{"given_name":"Asha","family_name":"Juma"}"#;
    let head = format!(
        "POST /api/students HTTP/1.1\r\nHost: a\r\nX-Tenant-Context: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        site.greenhill(),
        body.len()
    );
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    socket.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on[..], b"HTTP/1.1 100 Continue\r\n\r\n");

    let stopping = app.stop();
    eventually("the listener is closed", async || TcpStream::connect(address).await.is_err()).await;
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let site = Site::new();
    let app = site.instance().await;
    assert_eq!(app.get("/whoami", &site.greenhill()).await.status, 200);
    let _silent = TcpStream::connect(tcp(&app)).await.unwrap();
    let began = Instant::now();
    app.stop().await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn websockets_are_told_that_the_instance_goes() {
    let site = Site::new();
    let app = site.instance().await;
    let mut request = format!("ws://{}/api/live", app.address).into_client_request().unwrap();
    request.headers_mut().insert("X-Tenant-Context", site.greenhill().parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let stopping = app.stop();
    let Message::Close(Some(farewell)) = socket.next().await.unwrap().unwrap() else { panic!("not a close") };
    assert_eq!(u16::from(farewell.code), 1001);
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stopped_instance_leaves_databases_without_logs() {
    let site = Site::new();
    let app = site.instance().await;
    let student = serde_json::json!({"given_name": "Asha", "family_name": "Juma"});
    assert_eq!(app.post("/api/students", &site.greenhill(), &student).await.status, 201);
    app.stop().await.unwrap().unwrap();
    let mut left = Vec::new();
    let mut dirs = vec![site.data_dir().join("data/schools")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                dirs.push(entry.path());
            } else {
                left.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    left.sort();
    assert_eq!(left, ["school.db", "school.lock"]);
}
