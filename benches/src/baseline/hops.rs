//! A message from one client to another over a bare WebSocket server that makes it durable first:
//! the least that any synchronising database has to do.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};

/// Bytes of a message: about what a small transaction takes.
const PAYLOAD: usize = 64;

/// Times of `times` messages: hop, fdatasync at the server, hop.
///
/// # Errors
/// What the sockets or the file system say.
pub async fn durable_relay(folder: &Path, times: usize) -> anyhow::Result<Vec<Duration>> {
    let path = folder.join("hops-baseline");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0; PAYLOAD * times.max(1)], 0)?;
    file.sync_all()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        let (from, _) = listener.accept().await?;
        let mut from = accept_async(no_delay(from)?).await?;
        let (to, _) = listener.accept().await?;
        let mut to = accept_async(no_delay(to)?).await?;
        let mut offset = 0;
        while let Some(Ok(Message::Binary(bytes))) = from.next().await {
            file.write_all_at(&bytes, offset)?;
            file.sync_data()?;
            offset += bytes.len() as u64;
            to.send(Message::Binary(bytes)).await?;
        }
        anyhow::Ok(())
    });
    let url = format!("ws://{address}/");
    let connect = async || {
        let stream = no_delay(TcpStream::connect(address).await?)?;
        anyhow::Ok(client_async(&url, stream).await?.0)
    };
    let mut from = connect().await?;
    let mut to = connect().await?;
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        from.send(Message::Binary(vec![7; PAYLOAD].into())).await?;
        to.next().await.context("the relay ended")??;
        taken.push(start.elapsed());
    }
    from.close(None).await?;
    server.abort();
    std::fs::remove_file(&path)?;
    Ok(taken)
}

fn no_delay(stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}
