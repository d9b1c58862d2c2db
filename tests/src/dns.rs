//! A name server that answers from a table.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, MX, PTR, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Speaks UDP and TCP. Ends when it is dropped.
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    zone: RwLock<Zone>,
    asked: Mutex<Vec<String>>,
    asked_by_tcp: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// What is known of a name.
#[derive(Clone, Default)]
struct Entry {
    records: Vec<RData>,
    is_silent: bool,
    error: Option<ResponseCode>,
    is_truncated: bool,
    delay: Duration,
}

type Zone = BTreeMap<Name, Entry>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Udp,
    Tcp,
}

const TTL: u32 = 300;
/// How soon it notices that it is to end.
const GLANCE: Duration = Duration::from_millis(20);
/// Where a chain of aliases ends that goes in a circle.
const LONGEST_CHAIN: usize = 8;

// === impl DnsServer ===

impl DnsServer {
    /// Rows: an absolute name, or `*.` and one for all below that have no row; its type, A, AAAA, CNAME, MX, PTR or
    /// TXT; the data. With the type SILENT nothing is answered, with SERVFAIL or REFUSED that, with TRUNCATED no
    /// record over UDP, with DELAY (milliseconds) all else later. A name that has no row does not exist.
    #[track_caller]
    pub fn start(address: SocketAddr, rows: &[(&str, &str, &str)]) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(GLANCE)).unwrap();
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            zone: RwLock::new(zone(rows)),
            asked: Mutex::default(),
            asked_by_tcp: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let (udp, tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || serve(&Arc::new(socket), &udp)),
            std::thread::spawn(move || accept(&listener, &tcp)),
        ];
        Self { address, shared, threads }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers from another table from now on.
    #[track_caller]
    pub fn set(&self, rows: &[(&str, &str, &str)]) {
        *self.shared.zone.write().unwrap() = zone(rows);
    }

    /// The names that were asked for, in order, one for each question.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Those of them that came over TCP.
    pub fn asked_by_tcp(&self) -> Vec<String> {
        self.shared.asked_by_tcp.lock().unwrap().clone()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

#[track_caller]
fn zone(rows: &[(&str, &str, &str)]) -> Zone {
    let mut zone = Zone::new();
    for (name, kind, data) in rows {
        let entry = zone.entry(Name::from_ascii(name).unwrap()).or_default();
        let target = || Name::from_ascii(data).unwrap();
        match *kind {
            "A" => entry.records.push(RData::A(data.parse().unwrap())),
            "AAAA" => entry.records.push(RData::AAAA(data.parse().unwrap())),
            "CNAME" => entry.records.push(RData::CNAME(CNAME(target()))),
            "MX" => entry.records.push(RData::MX(MX::new(10, target()))),
            "PTR" => entry.records.push(RData::PTR(PTR(target()))),
            "TXT" => entry.records.push(RData::TXT(TXT::new(vec![(*data).to_owned()]))),
            "SILENT" => entry.is_silent = true,
            "SERVFAIL" => entry.error = Some(ResponseCode::ServFail),
            "REFUSED" => entry.error = Some(ResponseCode::Refused),
            "TRUNCATED" => entry.is_truncated = true,
            "DELAY" => entry.delay = Duration::from_millis(data.parse().unwrap()),
            other => panic!("no such type: {other}"),
        }
    }
    zone
}

fn serve(socket: &Arc<UdpSocket>, shared: &Arc<Shared>) {
    let mut bytes = [0; 4096];
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        let Ok(question) = Message::from_vec(&bytes[..length]) else { continue };
        let Some((answer, delay)) = answer(&question, shared, By::Udp) else { continue };
        let socket = Arc::clone(socket);
        let send = move || drop(socket.send_to(&answer.to_vec().unwrap(), from));
        if delay.is_zero() {
            send();
        } else {
            // One slow answer keeps no other waiting.
            std::thread::spawn(move || {
                std::thread::park_timeout(delay);
                send();
            });
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                std::thread::spawn(move || converse(stream, &shared));
            }
            Err(_) => std::thread::park_timeout(GLANCE),
        }
    }
}

/// RFC 1035 section 4.2.2: two octets of length before each message.
fn converse(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut bytes).ok()?;
        let question = Message::from_vec(&bytes).ok()?;
        let Some((answer, delay)) = answer(&question, shared, By::Tcp) else { continue };
        std::thread::park_timeout(delay);
        let answer = answer.to_vec().unwrap();
        stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).ok()?;
        stream.write_all(&answer).ok()?;
    }
}

fn answer(question: &Message, shared: &Shared, by: By) -> Option<(Message, Duration)> {
    let query = question.queries.first()?;
    let asked = query.name().to_ascii().to_lowercase();
    if by == By::Tcp {
        shared.asked_by_tcp.lock().unwrap().push(asked.clone());
    }
    shared.asked.lock().unwrap().push(asked);
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    let zone = shared.zone.read().unwrap();
    let mut delay = Duration::ZERO;
    let mut name = query.name().clone();
    // A chain of aliases is followed to its end, as a recursive resolver does.
    for _ in 0..LONGEST_CHAIN {
        let Some(entry) = find(&zone, &name) else {
            answer.metadata.response_code = ResponseCode::NXDomain;
            return Some((answer, delay));
        };
        delay += entry.delay;
        if entry.is_silent {
            return None;
        }
        if let Some(error) = entry.error {
            answer.metadata.response_code = error;
            return Some((answer, delay));
        }
        if entry.is_truncated && by == By::Udp {
            answer.metadata.truncation = true;
            return Some((answer, delay));
        }
        let mut next = None;
        for data in &entry.records {
            if let RData::CNAME(CNAME(target)) = data {
                next = Some(target.clone());
            }
            if data.record_type() == query.query_type() || data.record_type() == RecordType::CNAME {
                answer.add_answer(Record::from_rdata(name.clone(), TTL, data.clone()));
            }
        }
        match next {
            Some(next) => name = next,
            None => break,
        }
    }
    Some((answer, delay))
}

/// Its own entry, or the nearest `*.` above it.
fn find<'z>(zone: &'z Zone, name: &Name) -> Option<&'z Entry> {
    let mut above = name.clone();
    let mut found = zone.get(name);
    while found.is_none() && !above.is_root() {
        above = above.base_name();
        found = above.prepend_label("*").ok().and_then(|wildcard| zone.get(&wildcard));
    }
    found
}
