//! TCP over loopback, plain and with sealed records: both ends together, two threads.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result, anyhow, ensure};

use super::compute::{RECORD, Sealer, TAG};
use super::{Done, Gauge, time};

/// Records that are sent at once.
const BATCH: usize = 16;

pub(super) fn measure(len: usize) -> Result<Vec<Gauge>> {
    Ok(vec![
        time("plain TCP over loopback, both ends", || send(len, false))?,
        time("TCP with AES-128-GCM records, both ends", || {
            send(len, true)
        })?,
    ])
}

fn send(len: usize, sealed: bool) -> Result<Done> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let address = listener.local_addr()?;
    let batches = len.div_ceil(BATCH * RECORD);
    let receiver = std::thread::spawn(move || receive(&listener, batches, sealed));
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    let mut sealer = Sealer::new()?;
    let mut batch = vec![1; BATCH * (RECORD + TAG)];
    for _ in 0..batches {
        if sealed {
            for record in batch.chunks_exact_mut(RECORD + TAG) {
                let (plain, tag) = record.split_at_mut(RECORD);
                tag.copy_from_slice(&sealer.seal(plain)?);
            }
        }
        stream.write_all(&batch)?;
    }
    drop(stream);
    let received = receiver.join().map_err(|_| anyhow!("receiver died"))??;
    ensure!(received == batches * BATCH * RECORD, "bytes were lost");
    Ok(Done::Bytes(received as u64))
}

fn receive(listener: &TcpListener, batches: usize, sealed: bool) -> Result<usize> {
    let (mut stream, _) = listener.accept()?;
    let mut opener = Sealer::new()?;
    let mut batch = vec![0; BATCH * (RECORD + TAG)];
    let mut received = 0;
    for _ in 0..batches {
        stream.read_exact(&mut batch)?;
        for record in batch.chunks_exact_mut(RECORD + TAG) {
            if sealed {
                opener.open(record)?;
            }
            received += RECORD;
        }
    }
    Ok(received)
}
