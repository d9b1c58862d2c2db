//! A name server that answers from a table.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Speaks UDP. Ends when it is dropped.
pub struct DnsServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What is known of a name.
#[derive(Default)]
struct Entry {
    records: Vec<RData>,
    is_silent: bool,
    is_broken: bool,
}

type Zone = BTreeMap<Name, Entry>;

const TTL: u32 = 300;
/// How soon it notices that it is to end.
const GLANCE: Duration = Duration::from_millis(20);

// === impl DnsServer ===

impl DnsServer {
    /// Rows: an absolute name; its type, A, AAAA, CNAME or TXT; the data. With the type SILENT nothing is answered,
    /// with SERVFAIL that. A name that has no row does not exist.
    #[track_caller]
    pub fn start(address: SocketAddr, rows: &[(&str, &str, &str)]) -> Self {
        let mut zone = Zone::new();
        for (name, kind, data) in rows {
            let entry = zone.entry(Name::from_ascii(name).unwrap()).or_default();
            match *kind {
                "A" => entry.records.push(RData::A(data.parse().unwrap())),
                "AAAA" => entry.records.push(RData::AAAA(data.parse().unwrap())),
                "CNAME" => entry.records.push(RData::CNAME(CNAME(Name::from_ascii(data).unwrap()))),
                "TXT" => entry.records.push(RData::TXT(TXT::new(vec![(*data).to_owned()]))),
                "SILENT" => entry.is_silent = true,
                "SERVFAIL" => entry.is_broken = true,
                other => panic!("no such type: {other}"),
            }
        }
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(GLANCE)).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (asked, stop) = (Arc::clone(&asked), Arc::clone(&stop));
            move || serve(&socket, &zone, &asked, &stop)
        });
        Self { address, asked, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names that were asked for, in order, one for each question.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(socket: &UdpSocket, zone: &Zone, asked: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let mut bytes = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        let Ok(question) = Message::from_vec(&bytes[..length]) else { continue };
        if let Some(answer) = answer(&question, zone, asked) {
            drop(socket.send_to(&answer.to_vec().unwrap(), from));
        }
    }
}

fn answer(question: &Message, zone: &Zone, asked: &Mutex<Vec<String>>) -> Option<Message> {
    let query = question.queries.first()?;
    asked.lock().unwrap().push(query.name().to_ascii().to_lowercase());
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    let mut name = query.name().clone();
    // A chain of aliases is followed to its end, as a recursive resolver does.
    while let Some(entry) = zone.get(&name) {
        if entry.is_silent {
            return None;
        }
        if entry.is_broken {
            answer.metadata.response_code = ResponseCode::ServFail;
            return Some(answer);
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
            None => return Some(answer),
        }
    }
    answer.metadata.response_code = ResponseCode::NXDomain;
    Some(answer)
}
