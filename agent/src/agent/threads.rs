//! The threads of an agent beside those of the caller's runtime.
//!
//! Making and removing containers blocks for milliseconds in the kernel, again and again. It happens on threads of its own, and the
//! core has one of its own, so that neither a link nor a reader nor the next decision waits for it.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// How many containers can be in the kernel at once.
const WORKERS: usize = 4;

/// A runtime for what blocks. Dropped, it is abandoned: what blocks in it may go on for a moment.
#[derive(Debug)]
pub(super) struct Workers(Option<Runtime>);

/// A future on a thread of its own.
#[derive(Debug)]
pub(super) struct Thread {
    ended: oneshot::Receiver<()>,
}

// === impl Workers ===

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has none left.
    pub(super) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(WORKERS).thread_name("agent-container").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a function within the runtime.
    pub(super) fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        let _within = self.0.as_ref().map(Runtime::enter);
        run()
    }

    /// A handle to spawn by.
    pub(super) fn handle(&self) -> Handle {
        self.within(Handle::current)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // A runtime may not be waited for where an async function drops it.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

// === impl Thread ===

impl Thread {
    /// Starts a thread that does nothing but this.
    ///
    /// # Errors
    /// When the system has none left.
    pub(super) fn start(name: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (ending, ended) = oneshot::channel();
        let run = move || {
            runtime.block_on(future);
            let _ = ending.send(());
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { ended })
    }

    /// Waits until it has ended.
    pub(super) async fn ended(self) {
        // One that panicked has ended, too.
        let _ = self.ended.await;
    }
}
