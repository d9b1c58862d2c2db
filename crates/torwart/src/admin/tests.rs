use super::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Running {
    address: SocketAddr,
    admin: Arc<Admin>,
    stop: CancellationToken,
}

async fn start(bind: &str) -> Running {
    let listener = TcpListener::bind(bind).await.unwrap();
    let address = listener.local_addr().unwrap();
    let admin = Arc::new(Admin::with_policy(Registry::new()));
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, Arc::clone(&admin), stop.clone()));
    Running { address, admin, stop }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get_path(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

fn view() -> Arc<PolicyView> {
    Arc::new(PolicyView { summary: json!({"names": 1}), full: json!({"names": 1, "objects": []}) })
}

#[tokio::test]
async fn it_is_ready_while_it_serves_with_a_policy() {
    let running = start("127.0.0.1:0").await;
    for (serving, policy, status) in
        [(false, None, "503"), (true, None, "503"), (false, Some(view()), "503"), (true, Some(view()), "200")]
    {
        running.admin.serving.store(serving, Ordering::Relaxed);
        running.admin.policy.store(policy);
        let answer = get_path(running.address, "/readyz").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{serving}: {answer}");
        assert!(get_path(running.address, "/healthz").await.starts_with("HTTP/1.1 200"));
    }
    running.stop.cancel();
}

#[test]
fn an_edge_is_ready_without_a_policy() {
    let admin = Admin::without_policy(Registry::new());
    assert!(!admin.is_ready());
    admin.serving.store(true, Ordering::Relaxed);
    assert!(admin.is_ready());
}

#[tokio::test]
async fn an_edge_says_that_it_has_no_policy() {
    let admin = Arc::new(Admin::without_policy(Registry::new()));
    let client = Client("127.0.0.1:1024".parse().unwrap());
    assert_eq!(policy(State(admin), Extension(client)).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn metrics_come_from_the_registry() {
    let running = start("127.0.0.1:0").await;
    let counter = prometheus::IntCounter::new("torwart_test_total", "a test").unwrap();
    running.admin.registry.register(Box::new(counter.clone())).unwrap();
    counter.inc_by(3);
    let answer = get_path(running.address, "/metrics").await;
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\ntorwart_test_total 3\n"), "{answer}");
}

#[tokio::test]
async fn a_policy_is_shown_in_full_on_loopback() {
    let running = start("127.0.0.1:0").await;
    assert!(get_path(running.address, "/policy").await.starts_with("HTTP/1.1 503"));
    running.admin.policy.store(Some(view()));
    assert!(get_path(running.address, "/policy").await.ends_with("{\"names\":1,\"objects\":[]}"));
}

#[tokio::test]
async fn a_policy_is_shown_by_name_to_others() {
    let admin = Admin::with_policy(Registry::new());
    admin.policy.store(Some(view()));
    let client = Client("192.0.2.7:1024".parse().unwrap());
    let answer = policy(State(Arc::new(admin)), Extension(client)).await;
    let body = axum::body::to_bytes(answer.into_body(), 1024).await.unwrap();
    assert_eq!(&body[..], b"{\"names\":1}");
}

#[tokio::test]
async fn an_endless_header_is_cut_off() {
    let running = start("127.0.0.1:0").await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let mut sent = 0;
    // The server closes once its limit is passed; then writing fails.
    while sent < 100 * HEADER_BYTES && stream.write_all(b"X-Filler: 0123456789\r\n").await.is_ok() {
        sent += 22;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        sent < 100 * HEADER_BYTES || answer.starts_with(b"HTTP/1.1 431"),
        "an endless header was read on"
    );
    assert!(get_path(running.address, "/healthz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_cut_off() {
    let running = start("127.0.0.1:0").await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Returns only because the server closes; with the clock paused its limit passes at once.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}
