mod frames;
mod servers;

use std::sync::Arc;

use tokio::net::TcpListener;
use tonic::{Code, Request, Status};

use self::servers::{HANG, Verdict, ask};
use super::*;
use crate::testing::Authority;
use crate::tls::{ClientTls, ClientTlsFiles, ServerTls};

fn channel(address: SocketAddr) -> Channel {
    connect(address, None, &ChannelSettings::default())
}

/// An address where nobody listens.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn an_answer_comes_back() {
    let verdict = Verdict::start(None).await;
    let answer = ask(&channel(verdict.address), "answer").await.unwrap();
    assert_eq!(answer.revision, "r1");
}

#[tokio::test]
async fn what_a_server_marks_as_not_done_is() {
    let verdict = Verdict::start(None).await;
    let channel = channel(verdict.address);
    let marked = ask(&channel, "not done").await.unwrap_err();
    assert_eq!((marked.code(), is_not_done(&marked)), (Code::Unavailable, true));
    assert_eq!(marked.message(), "not done");
    for told in ["unavailable", "marked with 0"] {
        let plain = ask(&channel, told).await.unwrap_err();
        assert_eq!((plain.code(), is_not_done(&plain)), (Code::Unavailable, false), "{told}");
    }
}

#[tokio::test]
async fn what_nobody_took_is_not_done() {
    let refused = ask(&channel(nowhere().await), "answer").await.unwrap_err();
    assert_eq!((refused.code(), is_not_done(&refused)), (Code::Unavailable, true), "{refused:?}");
}

/// Takes one connection to a server and brings nothing back; ends it once the server has answered.
async fn swallow_answers_of(verdict: &Verdict, listener: TcpListener) {
    let (client, _) = listener.accept().await.unwrap();
    let server = TcpStream::connect(verdict.address).await.unwrap();
    let ((mut from_client, _to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let answered = async {
        while verdict.answered() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = tokio::io::copy(&mut from_server, &mut nowhere) => {}
        () = answered => {}
    }
}

#[tokio::test]
async fn a_server_behind_a_proxy_that_loses_its_answers_did_nothing_if_it_is_said_so() {
    let verdict = Verdict::start(None).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = channel(listener.local_addr().unwrap());
    let (failed, ()) = tokio::join!(ask(&channel, "answer"), swallow_answers_of(&verdict, listener));
    assert!(is_not_done(&failed.unwrap_err()));
    assert_eq!(verdict.answered(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_finish_its_handshake_is_given_up_and_did_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = Authority::new();
    let tls =
        ClientTls::load(authority.client(&["torwart-edge"], &authority.ca()), "torwart-verdict").unwrap();
    let channel = connect(silent.local_addr().unwrap(), Some(tls), &ChannelSettings::default());
    let late = ask(&channel, "answer").await.unwrap_err();
    assert_eq!((late.code(), is_not_done(&late)), (Code::Unavailable, true), "{late:?}");
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_a_call_may_have_acted() {
    let verdict = Verdict::start(None).await;
    let channel = channel(verdict.address);
    let (asked, ()) = tokio::join!(ask(&channel, HANG), async {
        verdict.entered.notified().await;
        verdict.kill();
    });
    assert!(!is_not_done(&asked.unwrap_err()));
}

#[tokio::test]
async fn a_call_whose_time_is_over_may_have_been_done() {
    let verdict = Verdict::start(None).await;
    let mut request = Request::new(servers::question(HANG));
    request.set_timeout(Duration::from_millis(20));
    let late = servers::client(&channel(verdict.address)).check_connection(request).await.unwrap_err();
    assert!(!is_not_done(&late), "{late:?}");
}

#[tokio::test]
async fn what_http_2_says_was_not_processed_is_not_done_and_nothing_else_is() {
    use frames::{goaway, reset};
    // RFC 9113 section 7: NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM.
    let table = [
        ("REFUSED_STREAM", reset(7), true),
        ("GOAWAY before the call", goaway(0, 0), true),
        ("GOAWAY with an error before the call", goaway(0, 2), true),
        ("GOAWAY that allows the call, then the end", goaway(1, 0), false),
        ("GOAWAY that allows all calls, then the end", goaway(i32::MAX as u32, 0), false),
        ("GOAWAY with an error, that allows the call", goaway(1, 2), false),
        ("a reset because of an error", reset(2), false),
        ("a reset because of CANCEL", reset(8), false),
        ("a reset because of ENHANCE_YOUR_CALM", reset(11), false),
        ("a reset without an error", reset(0), false),
        ("the end of the connection", Vec::new(), false),
        ("what is no HTTP/2", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), false),
    ];
    for (what, answer, is_sure) in table {
        let address = frames::answer_headers_with(answer).await;
        let failed = ask(&channel(address), "answer").await.unwrap_err();
        assert_eq!(is_not_done(&failed), is_sure, "{what}: {failed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_machine_that_vanished_ends_by_itself_and_may_have_been_done() {
    let address = frames::vanish_after_headers().await;
    let failed = ask(&channel(address), "answer").await.unwrap_err();
    assert_eq!((failed.code(), is_not_done(&failed)), (Code::Unavailable, false), "{failed:?}");
}

#[tokio::test]
async fn a_status_of_our_own_making_is_not_taken_for_a_sure_one() {
    for status in [Status::unavailable("x"), Status::cancelled("x"), Status::from_error("x".into())] {
        assert!(!is_not_done(&status), "{status:?}");
        assert!(is_not_done(&not_done(status)));
    }
}

#[tokio::test]
async fn a_broken_connection_is_made_anew_by_the_next_call() {
    let verdict = Verdict::start(None).await;
    let address = verdict.address;
    let channel = channel(address);
    ask(&channel, "answer").await.unwrap();
    verdict.kill();
    let again = Verdict::start_at(address, None).await;
    // A call that meets the old connection may fail; those after it find the new one.
    let _ = ask(&channel, "answer").await;
    ask(&channel, "answer").await.unwrap();
    assert!(again.answered() > 0);
}

#[tokio::test]
async fn a_server_that_goes_down_in_order_loses_no_call_unseen() {
    let verdict = Verdict::start(None).await;
    let channel = channel(verdict.address);
    ask(&channel, "answer").await.unwrap();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let mut done = 0;
                loop {
                    match ask(&channel, "answer").await {
                        Ok(_) => done += 1,
                        Err(error) => return (done, error),
                    }
                }
            })
        })
        .collect();
    while verdict.answered() < 500 {
        tokio::task::yield_now().await;
    }
    verdict.go_down();
    let mut done = 1;
    for caller in callers {
        let (answers, error) = caller.await.unwrap();
        assert!(is_not_done(&error), "{error:?}");
        done += answers;
    }
    assert_eq!(verdict.answered(), done, "calls that were done, and answers that arrived");
}

#[tokio::test]
async fn a_call_under_way_is_finished_while_its_server_goes_down() {
    let verdict = Verdict::start(None).await;
    let channel = channel(verdict.address);
    let (asked, ()) = tokio::join!(ask(&channel, "wait"), async {
        verdict.entered.notified().await;
        verdict.go_down();
        verdict.go_on.notify_one();
    });
    asked.unwrap();
    // Until the order has arrived everywhere, calls are still answered.
    let refused = loop {
        if let Err(refused) = ask(&channel, "answer").await {
            break refused;
        }
    };
    assert!(is_not_done(&refused), "{refused:?}");
}

#[tokio::test]
async fn each_new_connection_uses_the_newest_certificates() {
    let (authority, next) = (Authority::new(), Authority::new());
    let files = authority.server(&["torwart-verdict"], Some(&authority.ca()));
    let server = ServerTls::load(files.clone(), vec!["torwart-edge".to_owned()]).unwrap();
    let client_files = authority.client(&["torwart-edge"], &authority.ca());
    let client = ClientTls::load(client_files.clone(), "torwart-verdict").unwrap();
    let verdict = Verdict::start(Some(Arc::clone(&server))).await;
    let address = verdict.address;
    let channel = connect(address, Some(Arc::clone(&client)), &ChannelSettings::default());
    ask(&channel, "answer").await.unwrap();

    // The server comes back with a certificate of another CA.
    verdict.kill();
    let new = next.server(&["torwart-verdict"], None);
    std::fs::copy(&new.certificate, &files.certificate).unwrap();
    std::fs::copy(&new.key, &files.key).unwrap();
    assert!(server.reload());
    let _again = Verdict::start_at(address, Some(server)).await;
    let _ = ask(&channel, "answer").await;
    let refused = ask(&channel, "answer").await.unwrap_err();
    assert!(is_not_done(&refused), "nothing was sent to a server that is not trusted: {refused:?}");

    std::fs::copy(next.ca(), client_files.ca.unwrap()).unwrap();
    assert!(client.reload());
    ask(&channel, "answer").await.unwrap();
}

#[tokio::test]
async fn a_server_that_wants_tls_does_nothing_for_a_client_without() {
    let authority = Authority::new();
    let server = ServerTls::load(authority.server(&["torwart-verdict"], None), Vec::new()).unwrap();
    let verdict = Verdict::start(Some(server)).await;
    assert!(ask(&channel(verdict.address), "answer").await.is_err());
    assert_eq!(verdict.answered(), 0);
}

#[tokio::test]
async fn a_server_that_refuses_the_client_did_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.server(&["torwart-verdict"], Some(&authority.ca()));
    let server = ServerTls::load(files, vec!["torwart-edge".to_owned()]).unwrap();
    let verdict = Verdict::start(Some(server)).await;
    let anonymous = ClientTlsFiles { ca: Some(authority.ca()), certificate: None, key: None };
    let strangers = [
        anonymous,
        other.client(&["torwart-edge"], &authority.ca()),
        authority.client(&["web.example"], &authority.ca()),
    ];
    for files in strangers {
        let tls = ClientTls::load(files.clone(), "torwart-verdict").unwrap();
        let channel = connect(verdict.address, Some(tls), &ChannelSettings::default());
        let refused = ask(&channel, "answer").await.unwrap_err();
        assert!(is_not_done(&refused), "{files:?}: {refused:?}");
    }
    assert_eq!(verdict.answered(), 0);
}
