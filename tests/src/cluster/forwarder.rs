//! A way to the API server that a test can cut, for one process alone.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::endpoint;

/// Passes octets both ways while it is open.
pub struct Forwarder {
    pub endpoint: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_open: bool,
    ended: bool,
    streams: Vec<TcpStream>,
}

impl Forwarder {
    /// To this host and port.
    #[track_caller]
    pub fn to(target: &str) -> Self {
        let endpoint = endpoint();
        let listener = TcpListener::bind(endpoint).unwrap();
        let state = Arc::new(Mutex::new(State { is_open: true, ..State::default() }));
        let (shared, target) = (Arc::clone(&state), target.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                if shared.lock().unwrap().ended {
                    return;
                }
                forward(stream, &target, &shared);
            }
        });
        Self { endpoint, state }
    }

    /// Ends all connections, and every new one at once.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_open = false;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn open(&self) {
        self.state.lock().unwrap().is_open = true;
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.close();
        self.state.lock().unwrap().ended = true;
        let _ = TcpStream::connect(self.endpoint);
    }
}

fn forward(near: TcpStream, target: &str, state: &Mutex<State>) {
    let mut held = state.lock().unwrap();
    if !held.is_open {
        return;
    }
    let Ok(far) = TcpStream::connect(target) else { return };
    let both = [(near.try_clone(), far.try_clone()), (far.try_clone(), near.try_clone())];
    held.streams.extend([near, far]);
    for (from, to) in both {
        let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
        thread::spawn(move || {
            let mut chunk = vec![0; 16 * 1024];
            while let Ok(count) = from.read(&mut chunk) {
                if count == 0 || to.write_all(&chunk[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}
