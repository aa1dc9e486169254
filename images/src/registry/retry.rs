//! Repeats what failed for a passing reason: a bounded number of times, with growing pauses.

use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use super::RegistryOptions;
use crate::error::Error;

/// The longest pause a registry can impose by `Retry-After`.
const MAX_IMPOSED: Duration = Duration::from_secs(60);

/// Calls `attempt` until it succeeds, fails for good, or was called as often as the options allow.
pub(super) async fn retrying<T, F: Future<Output = Result<T, Error>>>(
    options: &RegistryOptions,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    let mut patience = Patience::new(options);
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => patience.pause(error).await?,
        }
    }
}

/// Counts failures and waits between them.
pub(super) struct Patience<'a> {
    options: &'a RegistryOptions,
    failures: u32,
}

impl<'a> Patience<'a> {
    pub(super) fn new(options: &'a RegistryOptions) -> Self {
        Self { options, failures: 0 }
    }

    /// Waits until the next attempt, or gives the error back when there must be none.
    pub(super) async fn pause(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_transient() {
            return Err(error);
        }
        self.failures += 1;
        if self.failures >= self.options.attempts {
            return Err(Error::GaveUp { attempts: self.failures, last: Box::new(error) });
        }
        let pause = error
            .retry_after()
            .map_or_else(|| backoff(self.options, self.failures), |imposed| imposed.min(MAX_IMPOSED));
        tracing::info!(%error, attempt = self.failures, pause_ms = pause.as_millis() as u64, "A request to a registry failed and will be repeated.");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// `first × 2^(failures-1)`, at most `max`, less up to a quarter by chance so that many agents do not come back at once.
fn backoff(options: &RegistryOptions, failures: u32) -> Duration {
    let doubled = options
        .first_backoff
        .saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(20)))
        .min(options.max_backoff);
    let chance = (RandomState::new().hash_one(failures) % 256) as u32;
    doubled - doubled / 4 * chance / 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn options() -> RegistryOptions {
        RegistryOptions {
            attempts: 3,
            first_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(2),
            ..RegistryOptions::default()
        }
    }

    fn broken() -> Error {
        Error::Connection { url: "x".into(), reason: "reset".into() }
    }

    #[tokio::test]
    async fn transient_failures_are_repeated_and_then_given_up() {
        let calls = Cell::new(0);
        let count = || calls.replace(calls.get() + 1);
        let result = retrying(&options(), || async { if count() < 2 { Err(broken()) } else { Ok(5) } }).await;
        assert_eq!((result.unwrap(), calls.get()), (5, 3));
        calls.set(0);
        let result: Result<(), _> = retrying(&options(), || async {
            count();
            Err(broken())
        })
        .await;
        assert!(matches!(result, Err(Error::GaveUp { attempts: 3, .. })));
        assert_eq!(calls.get(), 3);
    }

    #[tokio::test]
    async fn lasting_failures_are_not_repeated() {
        let calls = Cell::new(0);
        let result: Result<(), _> = retrying(&options(), || async {
            calls.set(calls.get() + 1);
            Err(Error::NotFound { what: "a".into(), registry: "b".into() })
        })
        .await;
        assert!(matches!(result, Err(Error::NotFound { .. })));
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let options = RegistryOptions::default();
        for (failures, longest) in [(1, 250), (2, 500), (3, 1000), (7, 10_000), (4_000_000, 10_000)] {
            let pause = backoff(&options, failures).as_millis();
            assert!(pause <= longest && pause >= longest * 3 / 4, "{failures}: {pause}");
        }
    }
}
