use std::time::Duration;

use prometheus::Registry;
use torwart_core::Host;

use super::*;

fn mk_gate(max_connections: u32) -> Arc<Gate> {
    let upstream =
        Upstream { host: Host::Name("mx.example".into()), port: 25, priority: 0, weight: 1, max_connections };
    Arc::new(Gate::new(&upstream, Arc::new(UpstreamMetrics::new(&Registry::new()).unwrap())))
}

fn network(number: u8) -> Network {
    Network::of([192, 0, number, 1].into())
}

#[tokio::test]
async fn a_gate_lets_in_as_many_as_it_allows() {
    let gate = mk_gate(2);
    let now = Instant::now();
    let first = gate.enter(network(0), now).await;
    let second = gate.enter(network(0), now).await;
    assert!(first.is_some() && second.is_some());
    assert!(gate.enter(network(0), now).await.is_none());
    drop(first);
    assert!(gate.enter(network(0), now).await.is_some());
}

#[tokio::test]
async fn a_slot_given_back_lets_the_next_one_in() {
    let gate = mk_gate(1);
    let slot = gate.enter(network(0), Instant::now()).await.unwrap();
    let waiting = tokio::spawn({
        let gate = gate.clone();
        async move { gate.enter(network(0), Instant::now() + Duration::from_secs(60)).await.is_some() }
    });
    tokio::task::yield_now().await;
    drop(slot);
    assert!(waiting.await.unwrap());
    assert!(gate.is_unused());
}

#[test]
fn an_address_that_failed_is_tried_last_and_never_left_out() {
    let gate = mk_gate(1);
    let now = Instant::now();
    let [a, b, c]: [SocketAddr; 3] =
        ["192.0.2.1:25", "192.0.2.2:25", "192.0.2.3:25"].map(|text| text.parse().unwrap());
    gate.failed(b, now + Duration::from_secs(30));
    gate.failed(a, now + Duration::from_secs(20));
    let mut order = [a, b, c];
    gate.order(&mut order, now);
    assert_eq!(order, [c, a, b]);
    let mut order = [a, b, c];
    gate.order(&mut order, now + Duration::from_secs(30));
    assert_eq!(order, [a, b, c]);
}

#[test]
fn what_is_remembered_of_addresses_is_bounded() {
    let gate = mk_gate(1);
    let now = Instant::now();
    for port in 1..1000 {
        gate.clear_text(SocketAddr::from(([192, 0, 2, 1], port)), now + Duration::from_secs(600));
    }
    assert_eq!(gate.state().clear.len(), REMEMBERED);
    assert!(gate.is_clear_text(SocketAddr::from(([192, 0, 2, 1], 999)), now));
    assert!(!gate.is_clear_text(SocketAddr::from(([192, 0, 2, 1], 999)), now + Duration::from_secs(600)));
}

#[tokio::test]
async fn a_slot_goes_to_the_network_that_holds_less_than_half() {
    let gate = mk_gate(2);
    let soon = Instant::now() + Duration::from_secs(60);
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(gate.enter(network(0), soon).await.unwrap());
    }
    let line = [0, 0, 1, 1].map(|number| Box::pin(gate.enter(network(number), soon)));
    let mut line = Vec::from(line);
    for place in &mut line {
        assert!(poll_once(place).is_none());
    }
    let mut came = Vec::new();
    while let Some(slot) = held.pop() {
        drop(slot);
        let place = line.iter_mut().enumerate().find_map(|(i, place)| Some((i, poll_once(place)?)));
        let (place, slot) = place.unwrap();
        came.push(slot.as_ref().map(|slot| slot.network));
        drop(line.remove(place));
        if let Some(slot) = slot {
            held.insert(0, slot);
        }
        if line.is_empty() {
            break;
        }
    }
    let came: Vec<_> = came.into_iter().flatten().collect();
    assert_eq!(came, [1, 0, 1, 0].map(network));
}

#[tokio::test]
async fn each_one_in_line_asks_one_slot_to_give_way() {
    let gate = mk_gate(2);
    let soon = Instant::now() + Duration::from_secs(60);
    let mut first = gate.enter(network(0), soon).await.unwrap();
    let mut second = gate.enter(network(0), soon).await.unwrap();
    let mut wanted = Box::pin(gate.wanted());
    assert!(poll_once(&mut wanted).is_none());
    assert!(!first.give_way(), "nobody is in line");
    let mut waiting = Box::pin(gate.enter(network(1), soon));
    assert!(poll_once(&mut waiting).is_none());
    assert!(poll_once(&mut wanted).is_some());
    assert!(first.give_way());
    assert!(!second.give_way(), "one is enough for one");
    assert!(poll_once(&mut Box::pin(gate.wanted())).is_none());
    drop(first);
    let third = poll_once(&mut waiting).flatten();
    assert!(third.is_some());
    let mut waiting = Box::pin(gate.enter(network(1), soon));
    assert!(poll_once(&mut waiting).is_none());
    assert!(second.give_way(), "the next one asks again");
}

#[tokio::test]
async fn who_left_the_line_holds_nobody_up() {
    let gate = mk_gate(1);
    let soon = Instant::now() + Duration::from_secs(60);
    let slot = gate.enter(network(0), soon).await.unwrap();
    let mut gone = Box::pin(gate.enter(network(1), soon));
    let mut patient = Box::pin(gate.enter(network(2), soon));
    assert!(poll_once(&mut gone).is_none() && poll_once(&mut patient).is_none());
    drop(gone);
    assert!(gate.enter(network(3), Instant::now()).await.is_none());
    assert_eq!(gate.state().line.len(), 1);
    drop(slot);
    assert!(poll_once(&mut patient).flatten().is_some());
    // One that leaves when it has its slot already gives it back.
    assert!(gate.is_unused());
    let slot = gate.enter(network(0), soon).await.unwrap();
    let mut gone = Box::pin(gate.enter(network(1), soon));
    assert!(poll_once(&mut gone).is_none());
    drop(slot);
    assert!(!gate.is_unused());
    drop(gone);
    assert!(gate.is_unused());
    assert!(gate.state().networks.is_empty());
}

#[test]
fn an_upstream_that_failed_is_doubtful_and_then_probed_by_one() {
    let gate = mk_gate(1);
    let now = Instant::now();
    let later = now + Duration::from_secs(30);
    assert!(matches!(gate.standing(now), Standing::Good));
    gate.not_opened(later);
    assert!(matches!(gate.standing(now), Standing::Doubtful));
    let probe = gate.standing(later);
    assert!(matches!(probe, Standing::Probe { .. }));
    assert!(matches!(gate.standing(later), Standing::Doubtful));
    drop(probe);
    assert!(matches!(gate.standing(later), Standing::Probe { .. }));
    gate.opened();
    assert!(matches!(gate.standing(now), Standing::Good));
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut cx) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
