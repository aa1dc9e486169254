//! Blobs, streamed from the registry to the thread that unpacks them.
//!
//! [`RegistryClient::fetch_blob`] sends [`pieces`](crate::pieces); the blocking side reads them. A connection that breaks is made
//! again from where it broke off.

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::retry::Patience;
use super::{Asker, RegistryClient, blob_url, connection};
use crate::error::Error;
use crate::manifest::Descriptor;
use crate::pieces::PieceSender;

// === impl RegistryClient ===

impl RegistryClient {
    /// Sends the blob into `pieces`. Returns without an error when the reader hangs up, since it knows why it did.
    pub(crate) async fn fetch_blob(
        &self,
        asker: &Asker,
        blob: &Descriptor,
        pieces: PieceSender,
        on_progress: impl FnMut(u64) + Send,
    ) -> Result<(), Error> {
        let mut patience = Patience::new(&self.options);
        let mut transfer = Transfer { asker, blob, pieces, done: 0, on_progress };
        loop {
            match transfer.run(self).await {
                Ok(()) => return Ok(()),
                Err(error) => patience.pause(error).await?,
            }
        }
    }
}

/// One blob on its way, across several connections if need be.
struct Transfer<'a, F> {
    asker: &'a Asker,
    blob: &'a Descriptor,
    pieces: PieceSender,
    /// Bytes handed on so far.
    done: u64,
    on_progress: F,
}

impl<F: FnMut(u64)> Transfer<'_, F> {
    async fn run(&mut self, client: &RegistryClient) -> Result<(), Error> {
        let url = blob_url(&self.asker.image, &self.blob.digest);
        let from = Some(self.done).filter(|done| *done > 0);
        let mut response = client.get(self.asker, &url, from, &self.what()).await?;
        let mut skip = self.bytes_to_skip(&response)?;
        while let Some(mut piece) = response.chunk().await.map_err(|error| connection(&url, &error))? {
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= skipped as u64;
            let piece = piece.split_off(skipped);
            if piece.is_empty() {
                continue;
            }
            let arrived = self.done + piece.len() as u64;
            if arrived > self.blob.size {
                return Err(self.wrong_size(arrived));
            }
            if !self.pieces.send(piece).await {
                return Ok(());
            }
            self.done = arrived;
            (self.on_progress)(arrived);
        }
        if self.done < self.blob.size {
            return Err(Error::BrokenOff { what: self.what(), got: self.done, expected: self.blob.size });
        }
        self.pieces.end().await;
        Ok(())
    }

    /// How many bytes of the answer are known already: all up to where the last connection broke, when the registry
    /// does not serve ranges.
    fn bytes_to_skip(&self, response: &Response) -> Result<u64, Error> {
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let start = response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok())
                .and_then(range_start);
            return match start {
                Some(start) if start <= self.done => Ok(self.done - start),
                _ => Err(Error::Malformed {
                    what: self.what(),
                    reason: "the registry answered with another range than was asked for".to_owned(),
                }),
            };
        }
        match response.content_length() {
            Some(length) if length != self.blob.size => Err(self.wrong_size(length)),
            _ => Ok(self.done),
        }
    }

    fn what(&self) -> String {
        format!("the blob {} of {}", self.blob.digest, self.asker.image)
    }

    fn wrong_size(&self, actual: u64) -> Error {
        Error::WrongSize { what: self.what(), expected: self.blob.size, actual }
    }
}

/// The first byte's position in `bytes FIRST-LAST/LENGTH`.
fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        assert_eq!(range_start("bytes */10"), None);
        assert_eq!(range_start(""), None);
    }
}
