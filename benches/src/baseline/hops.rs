//! A message from one client to another over a bare WebSocket server that makes it durable first:
//! the least that any synchronising database has to do. Blocking sockets and a thread for the
//! server: no runtime stands between the system calls.

use std::fs::OpenOptions;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio_tungstenite::tungstenite::{Message, accept, client};

/// Bytes of a message: about what a small transaction takes.
const PAYLOAD: usize = 64;

/// Times of `times` messages: hop, fdatasync at the server, hop.
///
/// # Errors
/// What the sockets or the file system say.
pub fn durable_relay(folder: &Path, times: usize) -> anyhow::Result<Vec<Duration>> {
    let path = folder.join("hops-baseline");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0; PAYLOAD * times.max(1)], 0)?;
    file.sync_all()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || {
        let mut from = accept(no_delay(listener.accept()?.0)?)?;
        let mut to = accept(no_delay(listener.accept()?.0)?)?;
        for n in 0..times {
            let message = from.read()?;
            file.write_all_at(&message.clone().into_data(), (n * PAYLOAD) as u64)?;
            file.sync_data()?;
            to.send(message)?;
        }
        anyhow::Ok(())
    });
    let url = format!("ws://{address}/");
    let connect = || anyhow::Ok(client(&url, no_delay(TcpStream::connect(address)?)?)?.0);
    let mut from = connect()?;
    let mut to = connect()?;
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        from.send(Message::Binary(vec![7; PAYLOAD].into()))?;
        to.read().context("the relay ended")?;
        taken.push(start.elapsed());
    }
    if server.join().is_ok_and(|done| done.is_err()) {
        bail!("the relay failed");
    }
    std::fs::remove_file(&path)?;
    Ok(taken)
}

fn no_delay(stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}
