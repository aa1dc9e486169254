//! Bytes on their way from the network to a thread that blocks on the disk.
//!
//! The async side sends pieces through a bounded channel, so a slow disk slows the network down and memory stays small; the blocking
//! side reads them as one stream. It sees an end only when all bytes came: a transfer that is dropped or fails makes it an error.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Pieces under way; a piece is what one read of a socket gave, 16 KiB or so.
const UNDER_WAY: usize = 64;

/// The sending end of a transfer.
#[derive(Debug)]
pub struct PieceSender(mpsc::Sender<Piece>);

/// The reading end of a transfer. Blocks.
#[derive(Debug)]
pub struct PieceReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    End,
}

/// Both ends of a transfer.
#[must_use]
pub fn pieces() -> (PieceSender, PieceReader) {
    let (sender, pieces) = mpsc::channel(UNDER_WAY);
    (PieceSender(sender), PieceReader { pieces, current: Bytes::new(), ended: false })
}

// === impl PieceSender ===

impl PieceSender {
    /// Sends a piece when there is room for it. False when the reader is gone, which knows why.
    pub async fn send(&self, bytes: Bytes) -> bool {
        self.0.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// Says that these were all.
    pub async fn end(&self) {
        // A reader that is gone needs no end.
        let _ = self.0.send(Piece::End).await;
    }
}

// === impl PieceReader ===

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the transfer was given up",
                    ));
                }
            }
        }
        let piece = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_ends_only_when_the_transfer_did() {
        let read = |mut reader: PieceReader| {
            tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                reader.read_to_string(&mut text).map(|_| text)
            })
        };
        let (sender, reader) = pieces();
        assert!(sender.send(Bytes::from_static(b"hello ")).await);
        assert!(sender.send(Bytes::from_static(b"world")).await);
        sender.end().await;
        assert_eq!(read(reader).await.unwrap().unwrap(), "hello world");

        let (sender, reader) = pieces();
        assert!(sender.send(Bytes::from_static(b"hello ")).await);
        drop(sender);
        let error = read(reader).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);

        let (sender, reader) = pieces();
        drop(reader);
        assert!(!sender.send(Bytes::from_static(b"hello ")).await);
    }
}
