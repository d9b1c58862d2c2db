use std::net::{Ipv4Addr, SocketAddr};

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn mk_config(host: &str, server: SocketAddr) -> Config {
    let mut config = Config::new(format!("http://{host}:{}", server.port()).parse().unwrap());
    config.connect_timeout = Some(PATIENCE);
    config.default_retry = false;
    config
}

async fn ask(client: &Client) -> Result<String, kube::Error> {
    let request = Request::get("/version").body(Vec::new()).unwrap();
    timeout(PATIENCE, client.request_text(request)).await.unwrap()
}

/// Answers one request on one connection.
async fn answer(listener: TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        heard.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
    String::from_utf8(heard).unwrap().to_lowercase()
}

#[tokio::test]
async fn an_api_server_is_reached_by_name_and_by_address_with_the_token() {
    for host in ["localhost", "127.0.0.1"] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        let mut config = mk_config(host, server);
        config.auth_info.token = Some("opensesame".to_owned().into());
        let client = connect(config).unwrap();
        let (heard, said) = tokio::join!(answer(listener), ask(&client));
        assert_eq!(said.unwrap(), "hello", "{host}");
        assert!(heard.starts_with("get /version http/1.1\r\n"), "{heard}");
        assert!(heard.contains(&format!("\r\nhost: {host}:{}\r\n", server.port())), "{heard}");
        assert!(heard.contains("\r\nauthorization: bearer opensesame\r\n"), "{heard}");
    }
}

#[tokio::test]
async fn an_api_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut config = mk_config("localhost", listener.local_addr().unwrap());
    config.read_timeout = Some(Duration::from_millis(100));
    let client = connect(config).unwrap();
    assert!(ask(&client).await.is_err());
    drop(listener);
}

#[tokio::test]
async fn a_name_that_is_nobodys_is_named_in_the_error() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = connect(mk_config("a..b", listener.local_addr().unwrap())).unwrap();
    let error = ask(&client).await.unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(why) = cause {
        text = format!("{text}: {why}");
        cause = why.source();
    }
    assert!(text.contains("a..b: "), "{text}");
}

#[tokio::test]
async fn a_proxy_is_refused_and_not_gone_around() {
    for proxy in ["http://proxy.example:3128", "https://proxy.example", "socks5://proxy.example"] {
        let mut config = mk_config("localhost", SocketAddr::from(([127, 0, 0, 1], 1)));
        config.proxy_url = Some(proxy.parse().unwrap());
        let error = connect(config).err().unwrap().to_string();
        assert!(error.contains("proxy"), "{error}");
    }
}
